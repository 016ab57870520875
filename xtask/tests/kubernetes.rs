//! The manifests of `deploy/kubernetes`, judged by Kubernetes' own schemas and by what each workload must have.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use xtask::{build, setup};

fn judge(python: &Path, folder: &Path) -> (bool, String) {
    let script = build::root().join("xtask/tests/judge_kubernetes.py");
    let Output { status, stdout, stderr } =
        Command::new(python).arg(script).arg(folder).output().expect("the judge starts");
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

#[test]
fn manifests_are_valid_and_wrong_ones_are_refused() {
    let python = setup::kubernetes_judge().unwrap();
    let manifests = build::root().join("deploy/kubernetes");
    let (is_valid, said) = judge(&python, &manifests);
    assert!(is_valid && said.contains("7 workloads"), "{said}");

    let folder = tempfile::tempdir().unwrap();
    let gateway = fs::read_to_string(manifests.join("gateway.yaml")).unwrap();
    for (right, wrong, expected) in [
        ("replicas: 2", "replica: 2", "replica"),
        ("containerPort: 8443", "containerPort: https", "https"),
        ("runAsNonRoot: true", "runAsNonRoot: false", "may run as root"),
        ("verbs: [list]", "verbs: [list, delete]", "may do more than look"),
        ("verbs: [list]", "verb: [list]", "verb"),
        ("[kubernetes]", "[kubernetes", "gateway.toml"),
        ("kind: NetworkPolicy", "kind: NetworkPolice", "no NetworkPolicy bounds"),
        ("          readinessProbe:", "          startupProbe:", "no readiness probe"),
        (
            "minAvailable: 1\n  selector:\n    matchLabels: { app.kubernetes.io/name: gateway }",
            "minAvailable: 1\n  selector:\n    matchLabels: { app.kubernetes.io/name: other }",
            "no PodDisruptionBudget",
        ),
    ] {
        assert!(gateway.contains(right), "{right:?} is not in gateway.yaml");
        fs::write(folder.path().join("gateway.yaml"), gateway.replacen(right, wrong, 1)).unwrap();
        let (is_valid, said) = judge(&python, folder.path());
        assert!(!is_valid && said.contains(expected), "{wrong:?}: {said}");
    }
}

/// A ConfigMap's file of a manifest.
fn file_in(manifest: &str, name: &str) -> String {
    let lines = manifest.lines().skip_while(|line| line.trim() != format!("{name}: |")).skip(1);
    let inside = lines.take_while(|line| line.is_empty() || line.starts_with("    "));
    inside.map(|line| line.strip_prefix("    ").unwrap_or_default().to_owned() + "\n").collect()
}

/// The programs take the manifests' configurations as they are, and miss only the files that the operator must bring.
#[test]
fn services_take_the_configurations_of_the_manifests() {
    setup::for_ci().unwrap();
    build::programs().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let run = |program: &str, arguments: &[&str], text: &str| {
        let config = folder.path().join("config.toml");
        fs::write(&config, text).unwrap();
        let mut command = Command::new(build::program(program).unwrap());
        let output = command.args(arguments).arg("--config").arg(config).output().unwrap();
        assert!(!output.status.success(), "{program} runs without certificates");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let manifests = build::root().join("deploy/kubernetes");
    let gateway = file_in(&fs::read_to_string(manifests.join("gateway.yaml")).unwrap(), "gateway.toml");
    let said = run("cloister-gateway", &["serve"], &gateway);
    assert!(said.contains("cannot read /trust/trust.toml"), "{said}");
    let said = run("cloister-gateway", &["serve"], &gateway.replace("service =", "servise ="));
    assert!(said.contains("servise"), "{said}");
    let relay = file_in(&fs::read_to_string(manifests.join("relay/relay.yaml")).unwrap(), "relay.toml");
    let relay = relay.replace("0.0.0.0:8443", "127.0.0.1:0");
    let said = run("cloister-relay", &[], &relay);
    assert!(said.contains("/tls/tls."), "{said}");
}
