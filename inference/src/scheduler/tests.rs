use super::*;
use crate::common::{SHAPE, Shape, model};
use crate::gguf::TensorType;
use crate::kernels::Price;
use crate::{Sampling, SingleThread, logits};
use alloc::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const LIMITS: Limits = Limits { context_tokens: 48, sessions: 4, prefill_chunk: 8, speculation: 16 };
const SMALL: Shape = Shape { layers: 2, ..SHAPE };

/// Guessing costs nothing.
const FREE: Price = Price { tokens: 64, cost: 0.5 };

/// Processors that are threads, joined at the end of each task.
struct Threads(usize);

impl Workers for Threads {
    fn count(&self) -> usize {
        self.0
    }

    fn run(&self, task: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for worker in 0..self.0 {
                scope.spawn(move || task(worker));
            }
        });
    }
}

impl<W> Scheduler<'_, W> {
    fn is_wiped(&mut self) -> bool {
        self.forward.is_wiped()
            && self.candidates.is_empty()
            && self.batch.is_empty()
            && self.slots.iter().all(|slot| slot.tokens.iter().all(|token| *token == 0))
    }
}

fn generation(prompt: &[u32], max_tokens: u32) -> Generation {
    Generation { prompt: prompt.to_vec(), max_tokens, stop: Vec::new(), sampling: Sampling::default() }
}

type Answers = BTreeMap<GenerationId, (Vec<u32>, FinishReason)>;

/// Steps until nothing is left.
fn finish<W: Workers>(scheduler: &mut Scheduler<'_, W>) -> Answers {
    let (mut output, mut tokens, mut answers) = (Vec::new(), BTreeMap::<_, Vec<u32>>::new(), Answers::new());
    while !scheduler.is_idle() {
        scheduler.step(&mut output);
        for Output { id, kind } in output.drain(..) {
            assert!(!answers.contains_key(&id), "output after the end");
            match kind {
                OutputKind::Token(token) => tokens.entry(id).or_default().push(token),
                OutputKind::Finished(reason) => {
                    answers.insert(id, (tokens.remove(&id).unwrap_or_default(), reason));
                }
            }
        }
    }
    answers
}

/// What one generation gives when nothing else is served.
fn alone(model: &Model<'_>, generation: Generation) -> (Vec<u32>, FinishReason) {
    let mut scheduler = Scheduler::new(model, LIMITS, SingleThread).unwrap();
    let id = scheduler.submit(generation).unwrap();
    finish(&mut scheduler).remove(&id).unwrap()
}

#[test]
fn greedy_takes_the_largest_logit_each_time() {
    for kind in TensorType::ALL {
        let file = model(SMALL.for_type(kind), kind, 21).finish();
        let model = Model::load(&file).unwrap();
        let mut text = vec![72, 101, 121, 32, 10, 200, 3, 1, 0, 9, 9];
        let (answer, reason) = alone(&model, generation(&text, 12));
        assert_eq!((answer.len(), reason), (12, FinishReason::Length));
        for token in answer {
            let all = logits(&model, &text, &SingleThread).unwrap();
            let last = &all[all.len() - model.config().vocabulary_length..];
            let best = (0..last.len()).rev().max_by(|a, b| last[*a].total_cmp(&last[*b])).unwrap();
            assert_eq!(token as usize, best, "{kind:?}");
            text.push(token);
        }
    }
}

#[test]
fn answers_do_not_depend_on_who_else_is_served_nor_on_the_workers() {
    let file = model(SMALL, TensorType::Q8_0, 22).finish();
    let model = Model::load(&file).unwrap();
    let prompts: Vec<Vec<u32>> =
        (0..9).map(|n| (0..3 + 4 * n).map(|i| (i * 31 + n * 7) % 256).collect()).collect();
    let make = |n: usize| {
        let sampling = match n % 3 {
            0 => Sampling::default(),
            _ => Sampling { temperature: 0.9, top_k: 40, top_p: 0.95, seed: n as u64, ..Sampling::default() },
        };
        Generation { prompt: prompts[n].clone(), max_tokens: 5 + n as u32, stop: Vec::new(), sampling }
    };
    let expected: Vec<_> = (0..prompts.len()).map(|n| alone(&model, make(n))).collect();
    for workers in [1, 3] {
        for prefill_chunk in [1, 5, 48] {
            let limits = Limits { prefill_chunk, ..LIMITS };
            let mut scheduler = Scheduler::new(&model, limits, Threads(workers)).unwrap();
            let (mut ids, mut output) = (Vec::new(), Vec::new());
            let mut tokens = BTreeMap::<_, Vec<u32>>::new();
            // Submitted as places become free, so that each shares its batches with others at other stages.
            while ids.len() < prompts.len() || !scheduler.is_idle() {
                if ids.len() < prompts.len() {
                    match scheduler.submit(make(ids.len())) {
                        Ok(id) => ids.push(id),
                        Err(error) => assert_eq!(error, SubmitError::Busy),
                    }
                }
                scheduler.step(&mut output);
                for Output { id, kind } in output.drain(..) {
                    if let OutputKind::Token(token) = kind {
                        tokens.entry(id).or_default().push(token);
                    }
                }
            }
            for (id, (expected, _)) in ids.iter().zip(&expected) {
                assert_eq!(&tokens[id], expected, "{workers} workers, chunks of {prefill_chunk}");
            }
        }
    }
}

#[test]
fn e5_every_request_is_bounded_or_refused() {
    let file = model(SMALL, TensorType::Q8_0, 23).finish();
    let model = Model::load(&file).unwrap();
    let mut scheduler = Scheduler::new(&model, LIMITS, SingleThread).unwrap();
    assert_eq!(scheduler.submit(generation(&[], 5)), Err(SubmitError::EmptyPrompt));
    let error = SubmitError::PromptTooLong { tokens: 49, limit: 48 };
    assert_eq!(scheduler.submit(generation(&[1; 49], 5)), Err(error));
    let outside = SHAPE.vocabulary as u32;
    assert_eq!(scheduler.submit(generation(&[1, outside], 5)), Err(SubmitError::TokenOutOfRange(outside)));
    assert_eq!(scheduler.submit(generation(&[u32::MAX], 5)), Err(SubmitError::TokenOutOfRange(u32::MAX)));
    assert!(scheduler.is_idle());

    let answer = |prompt: &[u32], max_tokens| {
        let (tokens, reason) = alone(&model, generation(prompt, max_tokens));
        (tokens.len(), reason)
    };
    assert_eq!(answer(&[1, 2, 3], 0), (0, FinishReason::Length));
    assert_eq!(answer(&[1, 2, 3], 1), (1, FinishReason::Length));
    // The last position gives one more token than is evaluated.
    assert_eq!(answer(&[1; 40], 1_000_000_000), (9, FinishReason::Length));
    assert_eq!(answer(&[1; 48], u32::MAX), (1, FinishReason::Length));

    for _ in 0..LIMITS.sessions {
        scheduler.submit(generation(&[1], 5)).unwrap();
    }
    assert_eq!(scheduler.submit(generation(&[1], 5)), Err(SubmitError::Busy));
}

/// Steps until nothing is left, and how many steps that took.
fn count_steps<W: Workers>(scheduler: &mut Scheduler<'_, W>) -> usize {
    let mut steps = 0;
    while !scheduler.is_idle() {
        scheduler.step(&mut Vec::new());
        steps += 1;
    }
    steps
}

#[test]
fn guesses_from_repetitions_save_steps() {
    let file = model(SMALL, TensorType::Q8_0, 30).finish();
    let model = Model::load(&file).unwrap();
    let limits = Limits { context_tokens: 96, sessions: 1, prefill_chunk: 96, speculation: 16 };
    let steps = |speculation, max_tokens| {
        let mut scheduler = Scheduler::new(&model, Limits { speculation, ..limits }, SingleThread).unwrap();
        scheduler.forward.price = FREE;
        scheduler.submit(generation(&[5, 6, 7], max_tokens)).unwrap();
        count_steps(&mut scheduler)
    };
    // A model of random weights repeats itself before long.
    assert_eq!(steps(0, 90), 90);
    let with = steps(16, 90);
    assert!(with < 60, "{with} steps for 90 tokens");
}

#[test]
fn e4_only_what_was_measured_is_shared() {
    let file = model(SMALL, TensorType::Q8_0, 31).finish();
    let model = Model::load(&file).unwrap();
    let prefix: Vec<u32> = (10..30).collect();
    let prompt = |len: usize, rest: &[u32]| [&prefix[..len], rest].concat();
    let mut scheduler = Scheduler::new(&model, LIMITS, SingleThread).unwrap();
    scheduler.share_prefix(&prefix).unwrap();
    scheduler.share_prefix(&prefix[..3]).unwrap();
    assert!(scheduler.is_idle() && scheduler.is_wiped());
    // What is left to evaluate decides how many chunks of eight a prompt takes.
    for (prompt, evaluated) in [
        (prompt(20, &[1, 2, 3]), 20),
        (prompt(20, &[]), 19),
        (prompt(12, &[1; 9]), 12),
        (prompt(0, &[1; 21]), 0),
    ] {
        let expected = alone(&model, generation(&prompt, 6));
        // The second time the same prompt of a user finds no more than the first time.
        for _ in 0..2 {
            let id = scheduler.submit(generation(&prompt, 6)).unwrap();
            let active = scheduler.slots.iter().find_map(|slot| slot.generation.as_ref()).unwrap();
            assert_eq!(active.evaluated, evaluated);
            assert_eq!(scheduler.share_prefix(&[1]), Err(SubmitError::Busy));
            assert_eq!(finish(&mut scheduler).remove(&id), Some(expected.clone()));
            assert!(scheduler.is_wiped());
        }
    }
    let long = SubmitError::PromptTooLong { tokens: 49, limit: 48 };
    assert_eq!(scheduler.share_prefix(&[1; 49]), Err(long));
    assert_eq!(scheduler.share_prefix(&[]), Err(SubmitError::EmptyPrompt));
    assert_eq!(scheduler.share_prefix(&[u32::MAX]), Err(SubmitError::TokenOutOfRange(u32::MAX)));
}

#[test]
fn e5_prompts_take_turns_also_beside_free_places() {
    let file = model(SMALL, TensorType::Q8_0, 32).finish();
    let model = Model::load(&file).unwrap();
    let limits = Limits { sessions: 16, prefill_chunk: 2, ..LIMITS };
    let mut scheduler = Scheduler::new(&model, limits, SingleThread).unwrap();
    for _ in 0..2 {
        scheduler.submit(generation(&[8; 40], 1)).unwrap();
    }
    for _ in 0..10 {
        scheduler.step(&mut Vec::new());
    }
    let evaluated =
        scheduler.slots.iter().filter_map(|slot| slot.generation.as_ref()).map(|active| active.evaluated);
    assert_eq!(evaluated.collect::<Vec<_>>(), [10, 10]);
}

#[test]
fn limits_that_cannot_be_had_are_refused() {
    let file = model(SMALL, TensorType::Q8_0, 23).finish();
    let model = Model::load(&file).unwrap();
    let refused = |limits| Scheduler::new(&model, limits, SingleThread).err().unwrap();
    let most = SHAPE.context;
    for asked in [0, most + 1, usize::MAX] {
        let limits = Limits { context_tokens: asked, ..LIMITS };
        assert_eq!(refused(limits), LimitsError::Context { asked, most });
    }
    for sessions in [0, 4097, usize::MAX] {
        assert_eq!(refused(Limits { sessions, ..LIMITS }), LimitsError::Sessions(sessions));
    }
    for prefill_chunk in [0, 49, usize::MAX] {
        assert_eq!(refused(Limits { prefill_chunk, ..LIMITS }), LimitsError::PrefillChunk(prefill_chunk));
    }
}

#[test]
fn a_stop_token_ends_the_answer_and_is_not_part_of_it() {
    let file = model(SMALL, TensorType::Q8_0, 24).finish();
    let model = Model::load(&file).unwrap();
    let (answer, _) = alone(&model, generation(&[5, 6, 7], 20));
    let first = answer.iter().position(|token| *token == answer[7]).unwrap();
    let stop = vec![u32::MAX, answer[7]];
    let (stopped, reason) = alone(&model, Generation { stop, ..generation(&[5, 6, 7], 20) });
    assert_eq!((&stopped[..], reason), (&answer[..first], FinishReason::Stop));
}

#[test]
fn a20_nothing_is_left_when_generations_end() {
    let file = model(SMALL, TensorType::Q8_0, 25).finish();
    let model = Model::load(&file).unwrap();
    let mut scheduler = Scheduler::new(&model, LIMITS, SingleThread).unwrap();
    let warm = Sampling { temperature: 1.0, ..Sampling::default() };
    let long = |max_tokens| Generation { sampling: warm, ..generation(&[7; 20], max_tokens) };
    scheduler.submit(long(4)).unwrap();
    scheduler.step(&mut Vec::new());
    assert!(!scheduler.is_wiped(), "a generation in progress leaves traces, or this test shows nothing");
    finish(&mut scheduler);
    assert!(scheduler.is_wiped());

    // Cancelled in the middle of its prompt, and in the middle of its answer.
    for steps in [1, 5] {
        let id = scheduler.submit(long(20)).unwrap();
        for _ in 0..steps {
            scheduler.step(&mut Vec::new());
        }
        assert!(!scheduler.is_wiped());
        scheduler.cancel(id);
        assert!(scheduler.is_idle() && scheduler.is_wiped());
        scheduler.cancel(id);
    }
}

#[test]
fn cancelling_one_leaves_the_others_as_they_were() {
    let file = model(SMALL, TensorType::Q8_0, 26).finish();
    let model = Model::load(&file).unwrap();
    let expected = alone(&model, generation(&[3, 1, 4, 1, 5], 10));
    let mut scheduler = Scheduler::new(&model, LIMITS, SingleThread).unwrap();
    let first = scheduler.submit(generation(&[9; 30], 10)).unwrap();
    let second = scheduler.submit(generation(&[3, 1, 4, 1, 5], 10)).unwrap();
    let mut output = Vec::new();
    scheduler.step(&mut output);
    scheduler.step(&mut output);
    scheduler.cancel(first);
    let before = output.iter().filter_map(|output| match output.kind {
        OutputKind::Token(token) if output.id == second => Some(token),
        _ => None,
    });
    let mut tokens: Vec<u32> = before.collect();
    let mut rest = finish(&mut scheduler);
    assert!(!rest.contains_key(&first));
    let (after, reason) = rest.remove(&second).unwrap();
    tokens.extend(after);
    assert_eq!((tokens, reason), expected);
}

#[test]
fn e5_long_prompts_do_not_stall_the_others() {
    let file = model(SMALL, TensorType::Q8_0, 27).finish();
    let model = Model::load(&file).unwrap();
    let mut scheduler = Scheduler::new(&model, LIMITS, SingleThread).unwrap();
    let mut output = Vec::new();
    let answering = scheduler.submit(generation(&[1, 2], 40)).unwrap();
    scheduler.step(&mut output);
    for _ in 0..2 {
        scheduler.submit(generation(&[8; 48], 1)).unwrap();
    }
    scheduler.step(&mut output);
    let short = scheduler.submit(generation(&[4, 5], 1)).unwrap();
    let gave = |output: &[Output], id| output.iter().any(|output| output.id == id);
    let mut waited = 0;
    while !gave(&output, short) {
        output.clear();
        scheduler.step(&mut output);
        assert!(gave(&output, answering), "an answer under way goes on with every step");
        waited += 1;
    }
    assert!(waited <= LIMITS.sessions, "the short prompt got its turn after {waited} steps");
}

/// What a service may do with a scheduler, in any order.
#[derive(Clone, Debug)]
enum Action {
    Submit { prompt: usize, max_tokens: u32, temperature: f32 },
    Step,
    Cancel(usize),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        2 => (0..50_usize, 0..20_u32, 0.0..2.0_f32)
            .prop_map(|(prompt, max_tokens, temperature)| Action::Submit { prompt, max_tokens, temperature }),
        6 => Just(Action::Step),
        1 => (0..30_usize).prop_map(Action::Cancel),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn guessing_changes_no_token(
        seed in 40..44_u64,
        pattern in prop::collection::vec(0..256_u32, 1..6),
        repeats in 1..6_usize,
        temperature in prop_oneof![Just(0.0_f32), 0.1..1.5_f32],
        repetition_penalty in prop_oneof![Just(1.0_f32), 0.8..1.3_f32],
        sessions in 1..4_usize,
        (speculation, prefill_chunk, workers) in (1..20_usize, 1..9_usize, 1..3_usize),
        free in any::<bool>(),
    ) {
        // Whatever is guessed, and as far as it pays.
        let price = if free { FREE } else { Price { tokens: 4, cost: 2.0 } };
        let file = model(SMALL, TensorType::Q8_0, seed).finish();
        let model = Model::load(&file).unwrap();
        let make = |session: usize| {
            let sampling = Sampling { temperature, repetition_penalty, seed: session as u64, ..Sampling::default() };
            let stop = vec![pattern[0]];
            Generation { sampling, stop, ..generation(&pattern.repeat(repeats + session), 4 * session as u32 + 40) }
        };
        let run = |speculation, prefill_chunk, workers| {
            let limits = Limits { sessions, speculation, prefill_chunk, ..LIMITS };
            let mut scheduler = Scheduler::new(&model, limits, Threads(workers)).unwrap();
            scheduler.forward.price = price;
            for session in 0..sessions {
                scheduler.submit(make(session)).unwrap();
            }
            let answers = finish(&mut scheduler);
            assert!(scheduler.is_wiped());
            answers
        };
        prop_assert_eq!(run(speculation, prefill_chunk, workers), run(0, 8, 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_requests_leaves_nothing_behind(actions in prop::collection::vec(action(), 1..60)) {
        let file = model(Shape { layers: 1, embedding: 64, feed_forward: 64, ..SHAPE }, TensorType::Q8_0, 28).finish();
        let model = Model::load(&file).unwrap();
        let mut scheduler = Scheduler::new(&model, LIMITS, SingleThread).unwrap();
        let (mut ids, mut live, mut output) = (Vec::new(), BTreeSet::new(), Vec::new());
        // At the end enough steps for the longest prompts and answers of all.
        let steps = core::iter::repeat_n(Action::Step, 200);
        for action in actions.into_iter().chain(steps) {
            match action {
                Action::Submit { prompt, max_tokens, temperature } => {
                    let sampling = Sampling { temperature, ..Sampling::default() };
                    let prompt = vec![prompt as u32; prompt];
                    let room = live.len() < LIMITS.sessions;
                    match scheduler.submit(Generation { prompt, max_tokens, stop: vec![3], sampling }) {
                        Ok(id) => {
                            prop_assert!(room && !ids.contains(&id));
                            ids.push(id);
                            live.insert(id);
                        }
                        Err(SubmitError::Busy) => prop_assert!(!room),
                        Err(_) => {}
                    }
                }
                Action::Step => {
                    scheduler.step(&mut output);
                    for Output { id, kind } in output.drain(..) {
                        prop_assert!(live.contains(&id));
                        if let OutputKind::Finished(_) = kind {
                            live.remove(&id);
                        }
                    }
                }
                Action::Cancel(index) => {
                    if let Some(id) = ids.get(index) {
                        scheduler.cancel(*id);
                        live.remove(id);
                    }
                }
            }
            prop_assert_eq!(scheduler.is_idle(), live.is_empty());
        }
        prop_assert!(scheduler.is_idle() && scheduler.is_wiped());
    }
}
