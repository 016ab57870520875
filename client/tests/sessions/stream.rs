//! Answers that break off, drag on, or are not what they should be.

use crate::support::server::{Connection, Server};
use crate::support::{CANARY, PATIENCE, amd_sp, connect, error, request};
use client::session::{Session, SessionError};
use client::task::{Done, summarize};
use std::sync::Arc;
use std::time::Duration;
use wire::task::{ErrorCode, FinishReason, TaskEvent};

/// The text that came, and how the answer ended.
async fn answer(
    patience: Duration,
    script: impl Fn(&mut Connection) + Send + Sync + 'static,
) -> (String, Result<Done, SessionError>) {
    let server = Server::attested(script);
    let policy = Arc::new(amd_sp::policy().into());
    let session = Session::connect(&server.address.to_string(), policy, patience, |_| ()).await;
    let mut session = session.expect("an attested session");
    let mut text = String::new();
    let result = summarize(&mut session, &request(), |piece| text += piece).await;
    (text, result)
}

const DONE: TaskEvent =
    TaskEvent::Done { reason: FinishReason::Stop, prompt_tokens: 3, completion_tokens: 2 };

#[tokio::test]
async fn only_what_was_asked_for_is_sent() {
    let server = Server::attested(|connection| {
        connection.start_events();
        connection.event(&DONE);
        connection.chunk(b"");
        connection.fall_silent();
    });
    let mut session = connect(server.address).await.expect("an attested session");
    summarize(&mut session, &request(), |_| ()).await.expect("an answer");
    let received = server.received();
    let paths: Vec<&str> = received.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(paths, [wire::path::EVIDENCE, wire::path::SUMMARIZE]);
    let sent: wire::task::SummarizeRequest = serde_json::from_slice(&received[1].body).expect("JSON");
    assert!(sent == request());
}

#[tokio::test]
async fn events_may_come_in_any_pieces() {
    let (text, result) = answer(PATIENCE, |connection| {
        connection.start_events();
        let stream = "event: x\r\ndata: {\"type\":\"delta\",\"text\":\"grü\"}\r\n\r\n: a comment\n\
            data:{\"text\":\"ß\",\"type\":\"delta\"}\n\n";
        for byte in stream.as_bytes() {
            connection.chunk(&[*byte]);
        }
        connection.event(&DONE);
        connection.chunk(b"");
    })
    .await;
    let done = Done { reason: FinishReason::Stop, prompt_tokens: 3, completion_tokens: 2 };
    assert_eq!((text.as_str(), result.ok()), ("grüß", Some(done)));
}

#[tokio::test]
async fn an_answer_that_ends_in_order_without_saying_that_it_is_complete_is_broken() {
    let (text, result) = answer(PATIENCE, |connection| {
        connection.start_events();
        connection.text("half");
        connection.chunk(b"");
        connection.close();
    })
    .await;
    let error = error(result);
    assert!(text == "half" && matches!(error, SessionError::Broken), "{error:?}");
}

#[tokio::test]
async fn a_server_that_closes_in_mid_stream() {
    // With TLS's farewell, and without, as when somebody cuts the line.
    for farewell in [true, false] {
        let (text, result) = answer(PATIENCE, move |connection| {
            connection.start_events();
            connection.text("half");
            if farewell {
                connection.close();
            }
        })
        .await;
        let error = error(result);
        assert!(text == "half" && matches!(error, SessionError::Broken), "{error:?}");
    }
}

#[tokio::test]
async fn a_stream_without_length_that_is_cut_is_broken_too() {
    let (text, result) = answer(PATIENCE, |connection| {
        connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        connection.send(b"data: {\"type\":\"delta\",\"text\":\"half\"}\n\n");
        connection.close();
    })
    .await;
    let error = error(result);
    assert!(text == "half" && matches!(error, SessionError::Broken), "{error:?}");
}

#[tokio::test]
async fn a_server_that_closes_instead_of_answering() {
    let (_, result) = answer(PATIENCE, Connection::close).await;
    let error = error(result);
    assert!(matches!(error, SessionError::Broken), "{error:?}");
}

#[tokio::test]
async fn a_server_that_falls_silent() {
    let patience = Duration::from_secs(4);
    let silent: [fn(&mut Connection); 3] = [
        Connection::fall_silent,
        |connection| {
            connection.start_events();
            connection.text("half");
            connection.fall_silent();
        },
        // Bytes drip in, but no event is ever complete.
        |connection| {
            connection.start_events();
            while connection.chunk(b": \n") {
                std::thread::sleep(Duration::from_millis(50));
            }
        },
    ];
    for script in silent {
        let (_, result) = answer(patience, script).await;
        let error = error(result);
        assert!(matches!(error, SessionError::Silent(waited) if waited == patience), "{error:?}");
    }
}

#[tokio::test]
async fn an_answer_is_complete_even_if_the_line_is_cut_right_after() {
    let (text, result) = answer(PATIENCE, |connection| {
        connection.start_events();
        connection.text("whole");
        connection.event(&DONE);
    })
    .await;
    assert_eq!((text.as_str(), result.is_ok()), ("whole", true));
}

#[tokio::test]
async fn a_session_is_good_for_another_task_even_if_the_end_of_the_stream_comes_late() {
    let server = Server::attested(|connection| {
        for _ in 0..2 {
            connection.start_events();
            connection.event(&DONE);
            std::thread::sleep(Duration::from_millis(200));
            connection.chunk(b"");
            connection.request();
        }
    });
    let mut session = connect(server.address).await.expect("an attested session");
    for _ in 0..2 {
        summarize(&mut session, &request(), |_| ()).await.expect("an answer");
    }
}

#[tokio::test]
async fn what_is_no_stream_of_events() {
    let scripts: [fn(&mut Connection); 7] = [
        // A line without end.
        |connection| {
            connection.start_events();
            while connection.chunk(&[b'x'; 4096]) {}
        },
        // Events without end, each harmless.
        |connection| {
            connection.start_events();
            let many = "data: {\"type\":\"delta\",\"text\":\"\"}\n".repeat(8000);
            while connection.chunk(many.as_bytes()) {}
        },
        // Not JSON, not an event, not UTF-8, not HTTP.
        |connection| {
            connection.start_events();
            connection.chunk(format!("data: {{\"type\":\"delta\",\"text\":\"{CANARY}\n\n").as_bytes());
        },
        |connection| {
            connection.start_events();
            connection.chunk(format!("data: {{\"type\":\"{CANARY}\"}}\n\n").as_bytes());
        },
        |connection| {
            connection.start_events();
            connection.chunk(format!("data: [\"{CANARY}\"]\n\n").as_bytes());
        },
        |connection| {
            connection.start_events();
            connection.chunk(b"data: {\"type\":\"delta\",\"text\":\"\xff\"}\n\n");
        },
        |connection| {
            connection.send(format!("{CANARY}\r\n\r\n").as_bytes());
        },
    ];
    for (number, script) in scripts.into_iter().enumerate() {
        let (text, result) = answer(PATIENCE, script).await;
        let error = error(result);
        assert!(matches!(error, SessionError::Malformed), "script {number}: {error:?}");
        assert!(text.is_empty());
    }
}

#[tokio::test]
async fn a_guest_that_gives_up_says_why() {
    let (text, result) = answer(PATIENCE, |connection| {
        connection.start_events();
        connection.text("half");
        connection.event(&TaskEvent::Failed { code: ErrorCode::Internal });
    })
    .await;
    let error = error(result);
    let is_internal = matches!(error, SessionError::Refused { code: Some(ErrorCode::Internal), .. });
    assert!(text == "half" && is_internal, "{error:?}");
}

#[tokio::test]
async fn a_refusal_cannot_steer_a_terminal_or_fill_it() {
    let (_, result) = answer(PATIENCE, |connection| {
        let message = format!("\\u001b[2Jno\\u202e{}", "!".repeat(5000));
        let body = format!("{{\"error\":{{\"code\":\"busy\",\"message\":\"{message}\"}}}}");
        connection.answer(503, body.as_bytes());
    })
    .await;
    let SessionError::Refused { code: Some(ErrorCode::Busy), message } = error(result) else {
        panic!("not refused")
    };
    assert!(message.starts_with("[2Jno!!!") && message.len() < 1000, "{message:?}");
}

#[tokio::test]
async fn a_refusal_in_no_known_form_is_a_status() {
    for status in [204, 302, 404, 500] {
        let (_, result) = answer(PATIENCE, move |connection| {
            connection.send(
                format!("HTTP/1.1 {status} {CANARY}\r\nLocation: /{status}\r\nContent-Length: 0\r\n\r\n")
                    .as_bytes(),
            );
        })
        .await;
        let error = error(result);
        assert!(matches!(error, SessionError::Refused { code: None, .. }), "{error:?}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
    }
}
