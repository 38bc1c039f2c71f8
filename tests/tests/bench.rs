//! The benchmark as a program: that it measures, not how fast anything is.

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
    // Direct, and two numbers of Services, with three metrics each.
    assert_eq!(results.len(), 9, "{report:#}");
    for result in results {
        assert_eq!(result["ratio_to_direct"]["rounds"], 2, "{result:#}");
        assert!(result["absolute"]["median"].as_f64().is_some_and(|rate| rate > 10.0), "{result:#}");
    }
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("nftables") && table.contains("udp_rr"), "{table}");
}
