//! What holds for every chat that the generator makes.

use std::collections::BTreeSet;

use super::*;

fn samples(split: Split, seed: u64, count: usize) -> Vec<Sample> {
    let texts = Texts::load().unwrap();
    let mut generator = texts.generator(split, seed);
    (0..count).map(|_| generator.sample(Difficulty::FULL)).collect()
}

#[test]
fn a_seed_names_its_samples() {
    assert_eq!(samples(Split::Train, 3, 50), samples(Split::Train, 3, 50));
    assert_ne!(samples(Split::Train, 3, 50), samples(Split::Train, 4, 50));
}

/// The shipped model's card speaks of exactly these samples. Whoever changes the generator trains a new model,
/// writes its scores into the card and this number here.
#[test]
fn the_training_data_is_what_the_card_describes() {
    let digest = samples(Split::Train, 1, 500).iter().fold(0xcbf2_9ce4_8422_2325u64, |digest, sample| {
        format!("{sample:?}")
            .bytes()
            .fold(digest, |digest, byte| (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    });
    assert_eq!(digest, 4_456_451_407_559_054_192);
}

/// The senders of some samples, word by word.
fn names(split: Split) -> BTreeSet<String> {
    let senders =
        samples(split, 1, 3000).into_iter().flat_map(|sample| sample.messages).map(|(sender, _)| sender);
    senders
        .flat_map(|sender| sender.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn nobody_is_in_both_pools() {
    let (train, held_out) = (names(Split::Train), names(Split::HeldOut));
    assert!(train.len() > 2000 && held_out.len() > 2000);
    assert_eq!(train.intersection(&held_out).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn names_times_and_places_of_a_summary_stand_in_the_chat() {
    for sample in samples(Split::HeldOut, 9, 1000).iter().filter(|sample| sample.task == Task::Summarize) {
        let chat: String =
            sample.messages.iter().map(|(sender, text)| format!("{sender}: {text}\n")).collect();
        for (kind, fact) in sample.facts().filter(|(kind, _)| *kind != FactKind::What) {
            let there = chat.to_lowercase().contains(&fact.to_lowercase());
            assert!(there, "{kind:?} '{fact}' is not in:\n{chat}");
        }
    }
}

#[test]
fn every_language_knows_the_same_units() {
    let texts = Texts::load().unwrap();
    let kinds = |language: &Language| language.units.iter().map(|unit| unit.kind.clone()).collect::<Vec<_>>();
    for language in &texts.languages {
        assert_eq!(kinds(language), kinds(&texts.languages[0]), "{}", language.code);
    }
}

#[test]
fn a_unit_with_an_unknown_slot_is_refused() {
    let broken = include_str!("../../data/en.toml").replace("{b} brings {item}.", "{b} brings {itme}.");
    let error = format!("{:#}", Language::parse(&broken).err().expect("the slot is misspelt"));
    assert!(error.contains("bring-asked") && error.contains("{itme}"), "{error}");
}
