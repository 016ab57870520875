//! Sessions with the guest's own service and the default model.

use crate::support::amd_sp::{self, AmdSp, SOURCE};
use crate::support::guest::Guest;
use crate::support::{CANARY, PATIENCE, connect, error, request};
use attestation::verifier::{Check, Relaxed, VerifyError};
use client::session::{Session, SessionError, Step};
use client::{export, task};
use service::AttestError;
use std::path::Path;
use std::sync::Arc;
use wire::event::{Event, RequestEnd};
use wire::task::{ErrorCode, Message, SummarizeRequest};

fn honest() -> Guest {
    let amd_sp = AmdSp::honest();
    Guest::start(move |report_data| Ok(amd_sp.attest(report_data)))
}

#[tokio::test]
async fn an_honest_guest_gives_a_session_a_summary_and_a_verdict() {
    let guest = honest();
    let mut steps = Vec::new();
    let policy = Arc::new(amd_sp::policy().into());
    let server = guest.address.to_string();
    let session = Session::connect(&server, policy, PATIENCE, |step| steps.push(step)).await;
    let mut session = session.expect("an attested session");
    assert_eq!(steps, [Step::Connecting, Step::Handshake, Step::Evidence]);

    let verdict = session.verdict();
    assert_eq!(verdict.image.name, SOURCE.manifest.image);
    assert_eq!(verdict.launch_digest.as_bytes(), &amd_sp::LAUNCH_DIGEST);
    assert!(!verdict.protects() && verdict.relaxed.contains(&Relaxed::DevelopmentRoot));
    assert!(verdict.checked.contains(&Check::FreshBinding), "{:?}", verdict.checked);

    let chat = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/samples/family-android.txt");
    let mut messages = export::read(&std::fs::read(chat).expect("the sample")).expect("a chat");
    let messages = messages.split_off(messages.len().saturating_sub(4));
    let request = SummarizeRequest { messages, max_tokens: Some(16) };
    let mut pieces: Vec<String> = Vec::new();
    let done = task::summarize(&mut session, &request, |text| pieces.push(text.to_owned())).await;
    let done = done.expect("a summary");
    assert!(!pieces.concat().is_empty());
    assert!((1..=16).contains(&done.completion_tokens) && done.prompt_tokens > 16, "{done:?}");

    drop(session);
    let ended = |event: &Event| match event {
        Event::RequestEnded { end: RequestEnd::Complete | RequestEnd::Length, tokens } => {
            // The operator is told powers of two from 64 (REQUIREMENTS C6).
            *tokens == 64
        }
        _ => false,
    };
    assert!(guest.events().iter().any(ended), "{:?}", guest.events());
}

#[tokio::test]
async fn a_session_carries_several_tasks_of_the_same_answer() {
    let guest = honest();
    let mut session = connect(guest.address).await.expect("an attested session");
    let mut answers = Vec::new();
    for _ in 0..3 {
        let mut answer = String::new();
        task::summarize(&mut session, &request(), |text| answer += text).await.expect("a summary");
        answers.push(answer);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[tokio::test]
async fn messages_that_do_not_fit_are_refused_with_the_reason() {
    let guest = honest();
    for (count, expected) in [(300, ErrorCode::PromptTooLong), (60_000, ErrorCode::BodyTooLarge)] {
        let mut session = connect(guest.address).await.expect("an attested session");
        let message = Message { sender: "Amara".into(), text: CANARY.into() };
        let request = SummarizeRequest { messages: vec![message; count], max_tokens: None };
        let refused = error(task::summarize(&mut session, &request, |_| panic!("no text")).await);
        assert!(
            matches!(refused, SessionError::Refused { code: Some(code), .. } if code == expected),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn b1_replayed_evidence() {
    let amd_sp = AmdSp::honest();
    let mut calls = 0;
    let mut first = None;
    // The first call is for the certificate; from the next one on, the guest is given what the first client was.
    let guest = Guest::start(move |report_data| {
        calls += 1;
        let over = if calls == 1 { report_data } else { first.get_or_insert(*report_data) };
        Ok(amd_sp.attest(over))
    });
    connect(guest.address).await.expect("the first report is fresh");
    let rejected = error(connect(guest.address).await);
    assert!(matches!(rejected, SessionError::Evidence(VerifyError::FreshBinding)), "{rejected:?}");
    assert!(!guest.was_asked());
}

#[tokio::test]
async fn b12_a_guest_whose_amd_sp_refuses_gives_no_session() {
    let amd_sp = AmdSp::honest();
    let mut calls = 0;
    let guest = Guest::start(move |report_data| {
        calls += 1;
        if calls == 1 { Ok(amd_sp.attest(report_data)) } else { Err(AttestError::Failed) }
    });
    let refused = error(connect(guest.address).await);
    assert!(matches!(refused, SessionError::Refused { code: Some(_), .. }), "{refused:?}");
    assert!(refused.to_string().contains("nothing was sent"), "{refused}");
}

#[tokio::test]
async fn an_image_that_the_policy_does_not_list_is_rejected() {
    let amd_sp = AmdSp { launch_digest: [0xb2; 48], ..AmdSp::honest() };
    let guest = Guest::start(move |report_data| Ok(amd_sp.attest(report_data)));
    let rejected = error(connect(guest.address).await);
    let SessionError::Evidence(VerifyError::LaunchDigest(digest)) = &rejected else { panic!("{rejected:?}") };
    assert_eq!(*digest, "b2".repeat(48));
    assert!(!guest.was_asked());
}

#[tokio::test]
async fn b10_a_model_is_rejected_if_the_policy_names_no_development_root() {
    let guest = honest();
    let policy = Arc::new(amd_sp::policy_without_development_root().into());
    let session = Session::connect(&guest.address.to_string(), policy, PATIENCE, |_| ()).await;
    let rejected = error(session);
    assert!(matches!(rejected, SessionError::Evidence(VerifyError::DevelopmentRootNotGiven)), "{rejected:?}");
    assert!(!guest.was_asked());
}
