//! kube-proxy's pages on its two ports.

use std::sync::Arc;

use serde_json::{Value, json};

use super::health::Moment;
use super::http::{Answer, Pages, Type};
use super::metrics::Exporter;
use super::observer::Observer;
use super::slis::Slis;

/// Answer of `/proxyMode`, in place of `nftables` or `iptables`.
const PROXY_MODE: &str = "lbr";

/// The pages of `--healthz-bind-address`.
pub(super) fn health(observer: Observer) -> Pages {
    Arc::new(move |path| {
        let report = match path {
            "/healthz" => observer.healthz(Moment::now()),
            "/livez" => observer.livez(Moment::now()),
            _ => return None,
        };
        Some(Answer::json(report.is_ok, report.body))
    })
}

/// The pages of `--metrics-bind-address`. `config`: the settings in effect, by kube-proxy's names.
pub(super) fn metrics(exporter: Exporter, config: &Value) -> Pages {
    let slis = Slis::default();
    let config = json!({"kubeproxy.config.k8s.io": config}).to_string();
    Arc::new(move |path| match path {
        "/metrics" => Some(metrics_page(exporter.text())),
        "/metrics/slis" => Some(metrics_page(slis.text())),
        "/healthz" => {
            slis.ping();
            Some(Answer::text("ok"))
        }
        "/healthz/ping" => Some(Answer::text("ok")),
        "/proxyMode" => Some(Answer::text(PROXY_MODE)),
        "/configz" => Some(Answer::json(true, config.clone())),
        _ => None,
    })
}

fn metrics_page(text: anyhow::Result<String>) -> Answer {
    match text {
        Ok(body) => Answer::new(Type::Metrics, body),
        Err(error) => Answer::error(500, format!("{error:#}\n")),
    }
}
