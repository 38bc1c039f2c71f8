//! `/metrics/slis`: results of health checks, by the names of Kubernetes' component-base. Apart from `/metrics`, so that it
//! can be read often.
//!
//! kube-proxy registers one check there, `ping`: `/healthz` of the metrics port, which any process that answers passes. What
//! load balancers ask, `/healthz` and `/livez` of the other port, is in `kubeproxy_proxy_healthz_total` and
//! `kubeproxy_proxy_livez_total`.

use std::sync::atomic::{AtomicU64, Ordering};

use super::metrics::{counter, encode, gauge, number};

/// How often the check was asked for. It has no way to fail.
#[derive(Debug, Default)]
pub(super) struct Slis {
    pings: AtomicU64,
}

impl Slis {
    /// Counts one `/healthz`.
    pub(super) fn ping(&self) {
        self.pings.fetch_add(1, Ordering::Relaxed);
    }

    /// In Prometheus' text format; empty before the first check.
    pub(super) fn text(&self) -> anyhow::Result<String> {
        let pings = Some(self.pings.load(Ordering::Relaxed)).filter(|count| *count > 0);
        let label = |name: &'static str, value: &str| (name, value.to_owned());
        let check = || vec![label("name", "ping"), label("type", "healthz")];
        let result = || vec![label("name", "ping"), label("status", "success"), label("type", "healthz")];
        encode(vec![
            gauge(
                "kubernetes_healthcheck",
                "The last result of a health check: 1 for success, 0 for an error.",
                pings.map(|_| (check(), 1.0)),
            ),
            counter(
                "kubernetes_healthchecks_total",
                "Results of health checks.",
                pings.map(|count| (result(), number(count))),
            ),
        ])
    }
}
