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
    assert!(is_valid && said.contains("6 workloads"), "{said}");

    let folder = tempfile::tempdir().unwrap();
    let gateway = fs::read_to_string(manifests.join("gateway.yaml")).unwrap();
    for (right, wrong, expected) in [
        ("replicas: 2", "replica: 2", "replica"),
        ("containerPort: 8443", "containerPort: https", "https"),
        ("runAsNonRoot: true", "runAsNonRoot: false", "may run as root"),
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
