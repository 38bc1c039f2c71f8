//! HTTPS and tokens, as in a pod.

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use lbr_tests::apiserver::{Options, Server};

use crate::fixtures::service;

fn secure() -> Server {
    let options =
        Options { tls: Some(Vec::new()), token: Some("open-sesame".to_owned()), ..Options::default() };
    let server = Server::start_with(&options).unwrap();
    server.put(service("a", "10.0.0.1")).unwrap();
    server
}

async fn names(kubeconfig: &str) -> Result<Vec<String>, kube::Error> {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let services: Api<k8s_openapi::api::core::v1::Service> = Api::all(Client::try_from(config)?);
    let list = services.list(&Default::default()).await?;
    Ok(list.items.into_iter().filter_map(|service| service.metadata.name).collect())
}

#[tokio::test]
async fn another_address_is_in_the_certificate() {
    for address in ["[::1]:0", "127.0.0.2:0"] {
        let address = address.parse().unwrap();
        let server = Server::start_with(&Options { address, tls: Some(Vec::new()), token: None }).unwrap();
        assert_eq!(server.address().ip(), address.ip());
        server.put(service("a", "10.0.0.1")).unwrap();
        assert_eq!(names(&server.kubeconfig()).await.unwrap(), ["a"]);
    }
}

#[tokio::test]
async fn kube_rs_trusts_the_authority_and_sends_the_token() {
    let server = secure();
    assert_eq!(names(&server.kubeconfig()).await.unwrap(), ["a"]);

    let right = server.kubeconfig();
    server.set_token(Some("another"));
    match names(&right).await {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 401),
        other => panic!("{other:?}"),
    }
    assert_eq!(names(&server.kubeconfig()).await.unwrap(), ["a"]);

    let other = secure();
    let mut stranger: serde_json::Value = serde_json::from_str(&server.kubeconfig()).unwrap();
    stranger["clusters"][0]["cluster"]["server"] = other.url().into();
    assert!(matches!(
        names(&stranger.to_string()).await,
        Err(kube::Error::HyperError(_) | kube::Error::Service(_))
    ));
}

#[test]
fn a_service_account_is_written_as_in_a_pod() {
    let server = secure();
    let folder = std::env::temp_dir().join(format!("apiserver-account-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    server.write_service_account(&folder).unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    assert_eq!((read("token"), read("namespace")), ("open-sesame".to_owned(), "default".to_owned()));
    assert_eq!(read("ca.crt"), server.authority().unwrap());
    std::fs::remove_dir_all(&folder).unwrap();
}
