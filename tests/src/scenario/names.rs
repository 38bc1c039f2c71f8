//! The scenarios by name, so that each of them is a test of its own wherever it runs.

/// A test for each file in `tests/scenarios/services` (`_` for `-`) that calls a function with its name, and one
/// that fails when a file has no test.
#[macro_export]
macro_rules! scenario_tests {
    ($play:path) => {
        $crate::scenario_tests! { @each $play;
            bad_object_from_the_start,
            bad_object_keeps_last_good,
            bridge_links_via_stack,
            cluster_ip,
            cluster_ip_change,
            cluster_ip_reused_by_another_service,
            delete_service_keeps_slices,
            delete_slice_keeps_service,
            direct_server_return,
            draining_becomes_last,
            dual_stack,
            dual_stack_to_single,
            duplicate_across_slices,
            duplicate_in_one_slice,
            duplicate_terminating_preferred,
            endpoint_loopback_rejected,
            endpoint_ports_without_name,
            external_ip,
            external_local_fallback_to_terminating,
            external_name,
            external_traffic_policy_local,
            family_mismatch,
            headless,
            headless_change_both_ways,
            headless_slice_label,
            host_network_endpoint,
            internal_traffic_policy_local,
            ipv6_only,
            link_hot_plug,
            load_balancer_address,
            load_balancer_source_ranges,
            local_links_direct,
            maglev,
            many_endpoints,
            multi_port,
            named_target_port_per_slice,
            namespaces_separate,
            nil_conditions,
            no_endpoints,
            node_port,
            node_port_addresses,
            node_port_dual_stack,
            node_port_same_port_two_protocols,
            node_port_taken_rejected,
            node_port_to_external_name,
            not_serving,
            ports_added_and_removed,
            protocol_change,
            protocol_mismatch,
            publish_not_ready,
            recreate_service,
            rejected_edit_closes,
            same_backend_two_services,
            same_port_tcp_udp,
            scale_1_3_0_1,
            sctp_port,
            service_before_slice,
            service_cidr,
            service_port_change,
            service_proxy_name,
            service_renamed_port,
            session_affinity,
            several_cluster_ips,
            several_slices,
            slice_before_service,
            slice_moves_to_other_service,
            slice_of_unknown_service,
            slices_with_different_ports,
            target_port_change,
            terminating_draining,
            terminating_fallback,
            topology_hints,
            traffic_policy_change,
            two_services_one_address_rejected,
            type_change_both_ways,
            unnamed_port,
            unready_becomes_ready,
            unused_port_refused,
        }
    };
    (@each $play:path; $($name:ident,)*) => {
        $(#[test]
        fn $name() {
            $play(&stringify!($name).replace('_', "-"));
        })*

        #[test]
        fn every_file_has_a_test() {
            use std::collections::BTreeSet;
            let tested: BTreeSet<_> = [$(stringify!($name).replace('_', "-"),)*].into();
            let files = $crate::scenario::Scenario::files("services").unwrap();
            let files = files.iter().filter_map(|f| Some(f.file_stem()?.to_string_lossy().into_owned()));
            assert_eq!(files.collect::<BTreeSet<_>>(), tested);
        }
    };
}
