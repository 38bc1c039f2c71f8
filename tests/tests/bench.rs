//! The benchmark as a program: the test is whether it measures, not how fast anything is.

use std::process::Command;

use serde_json::Value;

#[test]
fn direct_and_nftables_are_measured() {
    let file = std::env::temp_dir().join(format!("lbr-bench-{}.json", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["pod-to-pod", "--rounds", "2", "--seconds", "0.05", "--services", "1,300"])
        .args(["--configs", "nftables", "--metrics", "tcp_crr,tcp_rr,udp_rr", "--json"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let report: Value = serde_json::from_slice(&text).unwrap();
    let results = report["results"].as_array().unwrap();
    // Direct, and two numbers of Services; three metrics each.
    assert_eq!(results.len(), 9, "{report:#}");
    for result in results {
        assert_eq!(result["ratio_to_direct"]["rounds"], 2, "{result:#}");
        assert!(result["absolute"]["median"].as_f64().is_some_and(|rate| rate > 10.0), "{result:#}");
    }
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("nftables") && table.contains("udp_rr"), "{table}");
}

#[test]
fn node_ports_are_measured_from_outside_to_both_places() {
    let file = std::env::temp_dir().join(format!("lbr-bench-node-port-{}.json", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args([
            "node-port",
            "--rounds",
            "1",
            "--seconds",
            "0.05",
            "--metrics",
            "tcp_crr,udp_rr,udp_pps,udp_new",
        ])
        .arg("--json")
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let report: Value = serde_json::from_slice(&text).unwrap();
    let results = report["results"].as_array().unwrap();
    let configs = 1 + lbr_tests::bench::node_port::CONFIGS.split(',').count();
    assert_eq!(results.len(), configs * 2 * 4, "{report:#}");
    for result in results {
        assert!(["here", "there"].contains(&result["backend"].as_str().unwrap()), "{result:#}");
        assert!(result["absolute"]["median"].as_f64().is_some_and(|rate| rate > 10.0), "{result:#}");
        let counts = ["udp_pps", "udp_new"].contains(&result["metric"].as_str().unwrap());
        assert_eq!(result["lost"]["median"].as_f64().is_some_and(|lost| lost < 1.0), counts, "{result:#}");
    }
}

#[test]
fn packets_are_counted_for_node_ports_only() {
    let arguments = ["pod-to-pod", "--rounds", "1", "--metrics", "udp_pps"];
    let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("udp_pps"), "{said}");
}

#[test]
fn every_program_with_a_test_run_is_listed() {
    let arguments = ["programs", "--rounds", "1"];
    let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    for program in ["(empty)", "from_pod", "to_pod", "from_netdev", "to_netdev"] {
        assert!(table.lines().any(|line| line.starts_with(program)), "{program}: {table}");
    }
    assert!(table.contains(" IPv4 ") && table.contains(" IPv6 "), "{table}");
}
