use super::*;
use proptest::{collection::vec, prelude::*, sample::select};

fn name() -> impl Strategy<Value = Name> {
    "[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}".prop_map(|text| text.parse().unwrap())
}

fn digest() -> impl Strategy<Value = [u8; 48]> {
    vec(1_u8.., 48).prop_map(|bytes| bytes.try_into().unwrap())
}

fn files() -> impl Strategy<Value = Vec<File>> {
    vec((name(), any::<u64>(), digest()), 1..4).prop_map(|files| {
        let mut files: Vec<File> =
            files.into_iter().map(|(name, size, sha384)| File { name, size, sha384 }).collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files.dedup_by(|a, b| a.name == b.name);
        files
    })
}

fn launches() -> impl Strategy<Value = Vec<Launch>> {
    vec((name(), any::<u32>(), name(), digest()), 1..4).prop_map(|launches| {
        let mut launches: Vec<Launch> = launches
            .into_iter()
            .map(|(container, vcpus, cpu_type, digest)| Launch { container, vcpus, cpu_type, digest })
            .collect();
        launches.sort_by(|a, b| a.machine().cmp(&b.machine()));
        launches.dedup_by(|a, b| a.machine() == b.machine());
        launches
    })
}

fn subject() -> impl Strategy<Value = Subject> {
    let image = (digest(), name(), digest(), launches(), files(), select(vec![20_usize, 32])).prop_map(
        |(manifest_digest, model, weights_root, launches, files, commit)| {
            let source_commit = vec![7; commit];
            Subject::Image(Image { manifest_digest, model, weights_root, launches, files, source_commit })
        },
    );
    let model =
        (digest(), files()).prop_map(|(weights_root, files)| Subject::Model(Model { weights_root, files }));
    let key = (vec(any::<u8>(), 1..40), 0..u64::MAX).prop_map(|(key, not_before)| PublicKey {
        key,
        not_before,
        not_after: not_before + 1,
    });
    let list = (any::<u64>(), any::<u64>(), vec((any::<[u8; 32]>(), name()), 0..4)).prop_map(
        |(number, issued, list)| {
            let mut revoked: Vec<Revoked> =
                list.into_iter().map(|(leaf, reason)| Revoked { leaf, reason }).collect();
            revoked.sort_by_key(|revoked| revoked.leaf);
            revoked.dedup_by_key(|revoked| revoked.leaf);
            Subject::Revocations(Revocations { number, issued, revoked })
        },
    );
    prop_oneof![image, model, key.clone().prop_map(Subject::OhttpKey), key.prop_map(Subject::IssuerKey), list]
}

prop_compose! {
    fn entry()(
        name in name(), role in name(), version: [u32; 3], previous: Option<Hash>, subject in subject(),
    ) -> Entry {
        let [major, minor, patch] = version;
        Entry { name, role, version: Version::new(major, minor, patch), previous, subject }
    }
}

proptest! {
    #[test]
    fn d1_what_is_encoded_is_decoded_and_nothing_else_decodes_to_it(entry in entry(), at: proptest::sample::Index, bit in 0..8_u32) {
        let encoded = entry.encode().unwrap();
        prop_assert_eq!(Entry::decode(&encoded), Ok(entry.clone()));
        // As JSON, which the tools read, it is the same.
        let json = serde_json::to_string(&entry).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Entry>(&json).unwrap(), &entry);

        let mut other = encoded.clone();
        other[at.index(encoded.len())] ^= 1 << bit;
        if let Ok(read) = Entry::decode(&other) {
            prop_assert_ne!(&read, &entry);
            prop_assert_eq!(read.encode(), Ok(other));
        }
        prop_assert!(Entry::decode(&encoded[..at.index(encoded.len())]).is_err());
        prop_assert_eq!(Entry::decode(&[&encoded[..], &[0]].concat()), Err(EntryError::NotCanonical));
    }

    #[test]
    fn d1_an_entry_of_one_kind_is_never_one_of_another(entry in entry(), kind in select(Kind::ALL.to_vec())) {
        let encoded = entry.encode().unwrap();
        let own = entry.kind().name();
        prop_assume!(kind != entry.kind());
        // The same fields under another kind's name: read as that kind, or not at all, and never with the same leaf.
        let (from, to) = (Writer::new(own).finish(), Writer::new(kind.name()).finish());
        let start = 4 + LABEL.len();
        let swapped = [&encoded[..start], &to[..], &encoded[start + from.len()..]].concat();
        if let Ok(read) = Entry::decode(&swapped) {
            prop_assert_eq!(read.kind(), kind);
            prop_assert_ne!(read.leaf_hash(), entry.leaf_hash());
        }
    }
}

fn model(files: &[&str]) -> Entry {
    let files =
        files.iter().map(|name| File { name: name.parse().unwrap(), size: 1, sha384: [1; 48] }).collect();
    Entry {
        name: "mini".parse().unwrap(),
        role: "weights".parse().unwrap(),
        version: Version::new(1, 0, 0),
        previous: None,
        subject: Subject::Model(Model { weights_root: [2; 48], files }),
    }
}

#[test]
fn d1_lists_have_one_order_and_nothing_twice() {
    assert!(model(&["a", "b"]).encode().is_ok());
    for files in [&["b", "a"][..], &["a", "a"], &[]] {
        assert_eq!(model(files).encode(), Err(EntryError::Field("list of files")), "{files:?}");
    }
    // Written by somebody who does not care, it is refused by the reader as well.
    let good = model(&["a", "b"]).encode().unwrap();
    let place = |name: &str| {
        let field = Writer::new(name).finish();
        good.windows(field.len()).rposition(|window| window == field).unwrap() + 4
    };
    let mut swapped = good.clone();
    swapped.swap(place("a"), place("b"));
    assert_eq!(Entry::decode(&swapped), Err(EntryError::Field("list of files")));
}

#[test]
fn names_are_plain_and_versions_canonical() {
    for bad in ["", ".hidden", "a/b", "ü", "a b", "a\n", &"x".repeat(129)] {
        assert!(bad.parse::<Name>().is_err(), "{bad:?}");
    }
    for bad in ["", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.-3", "1.2.4294967296", "1.2.3 "] {
        assert_eq!(bad.parse::<Version>(), Err(NotAVersion), "{bad:?}");
    }
    assert!("0.10.0".parse::<Version>().unwrap() > "0.9.99".parse().unwrap());
}

#[test]
fn b7_an_image_that_would_expect_nothing_is_no_entry() {
    let name = |text: &str| text.parse::<Name>().unwrap();
    let launch = Launch { container: name("rom"), vcpus: 1, cpu_type: name("EPYC-Genoa"), digest: [3; 48] };
    let image = Image {
        manifest_digest: [4; 48],
        model: name("mini.gguf"),
        weights_root: [5; 48],
        launches: vec![launch.clone()],
        files: vec![File { name: name("cloister.rom"), size: 1, sha384: [6; 48] }],
        source_commit: vec![7; 20],
    };
    let encode = |image: Image| Entry { subject: Subject::Image(image), ..model(&["a"]) }.encode();
    assert!(encode(image.clone()).is_ok());
    let wrong = [
        Image { manifest_digest: [0; 48], ..image.clone() },
        Image { launches: Vec::new(), ..image.clone() },
        Image { launches: vec![Launch { digest: [0; 48], ..launch.clone() }], ..image.clone() },
        Image { launches: vec![launch.clone(), launch], ..image.clone() },
        Image { files: Vec::new(), ..image.clone() },
        Image { source_commit: vec![7; 19], ..image },
    ];
    for image in wrong {
        assert!(matches!(encode(image.clone()), Err(EntryError::Field(_))), "{image:?}");
    }
}
