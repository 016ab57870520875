//! The same source gives the same image: in another folder, for another user with another home and another cargo, with
//! another number of jobs, from vendored crates and without the network, with the toolchain's `rust-src` component and without.
//! A chroot with nothing but a minimal system in it is `cargo xtask audit-in-chroot`, which `cargo ci` runs.

#[path = "../../transparency/tests/common/mod.rs"]
mod common;

use common::World;
use image_builder::audit::compare;
use image_builder::checkout::Checkout;
use image_builder::digests::Digests;
use image_builder::freestanding::{self, Program};
use image_builder::publish::{agree::agree, builders::Builders, statement};
use image_builder::source::Source;
use image_builder::{igvm, rom};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use transparency::entry::{Entry, File};
use transparency::key::{Algorithm, SignerKey};

/// A user that exists nowhere else in this test: Debian's `nobody`.
const NOBODY: u32 = 65534;

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}:\n{text}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A copy of the toolchain that looks as if the `rust-src` component were installed if this one looks as if it were not, and
/// the other way round. The compiler looks for one file to know (`rustc_session`, `real_rust_source_base_dir`).
fn other_toolchain(checkout: &Checkout, folder: &Path) -> PathBuf {
    let sysroot = run(Command::new("rustc").args(["--print", "sysroot"]).current_dir(checkout.root()));
    let copy = folder.join("toolchain");
    let sysroot = Path::new(sysroot.trim());
    fs::create_dir(&copy).unwrap();
    // Not its documentation.
    run(Command::new("cp").arg("--archive").args(["bin", "lib"].map(|part| sysroot.join(part))).arg(&copy));
    let library = copy.join("lib/rustlib/src/rust/library");
    if library.is_dir() {
        fs::remove_dir_all(library).unwrap();
    } else {
        fs::create_dir_all(library.join("std/src")).unwrap();
        fs::write(library.join("std/src/lib.rs"), "").unwrap();
    }
    copy
}

/// Logs an image for which two builders vouch; `cloister-image audit` is told of it with these words.
async fn logged(folder: &Path, rom: &[u8], igvm: &[u8], source: &Source) -> Vec<OsString> {
    let digests = Digests::of(rom, igvm, &source.manifest, "cloister-mini.gguf").unwrap().to_json();
    let file = |name, bytes| File::of(common::name(name), bytes);
    let files = vec![
        file("cloister.rom", rom),
        file("cloister.igvm", igvm),
        file("digests.json", digests.as_bytes()),
    ];
    let entry = Entry::of_image(&digests, files, &[2], common::name("guest"), vec![7; 20]).unwrap();
    let mut builders = "threshold = 2\n".to_owned();
    let notes = ["a", "b"].map(|name| {
        let key = SignerKey::generate(&format!("builder.example/{name}"), Algorithm::Ed25519).unwrap();
        builders += &format!("[[builder]]\nkey = \"{}\"\n", key.public());
        statement::sign(&entry, &key).unwrap()
    });
    let agreed = agree(&notes, &Builders::parse(&builders).unwrap()).unwrap();
    let world = World::new(1, 1).await;
    let mut writer = world.writer().await;
    let index = writer.append_vouched(entry, &agreed.statements).await.unwrap()[0].index;
    writer.publish().await.unwrap();
    let [proof, trust, who, tiles] =
        ["cloister.tlog-proof", "trust.toml", "builders.toml", "log"].map(|name| folder.join(name));
    fs::write(&proof, writer.prove(index).await.unwrap().encode()).unwrap();
    let log = [("log", world.trust.file())].into_iter().collect::<BTreeMap<_, _>>();
    fs::write(&trust, toml::to_string(&log).unwrap()).unwrap();
    fs::write(&who, builders).unwrap();
    run(Command::new("cp").arg("--archive").arg(world.tiles()).arg(&tiles));
    let words: [&Path; 7] =
        [&proof, "--trust".as_ref(), &trust, "--builders".as_ref(), &who, "--log".as_ref(), &tiles];
    words.map(|word| word.as_os_str().to_owned()).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_another_folder_user_home_cargo_and_toolchain_give_the_same_rom_and_a_changed_byte_is_named() {
    let here = Checkout::find().unwrap();
    let folder = tempfile::Builder::new().prefix("cloister ").tempdir_in("/var/tmp").unwrap();
    let folder = folder.path();
    let source = Source::load(&here.root().join("models/manifest.toml")).unwrap();
    let rom_of = |kernel: &[u8]| rom::build(kernel, &source.manifest).unwrap();
    let kernel = fs::read(freestanding::build(Program::Kernel).unwrap()).unwrap();
    let mine = rom_of(&kernel);
    let published = folder.join("published.rom");
    fs::write(&published, &mine).unwrap();
    let logged = logged(folder, &mine, &igvm::build(&kernel, &source.manifest).unwrap(), &source).await;

    let vendor = folder.join("vendor");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(Command::new(&cargo).args(["vendor", "--locked"]).arg(&vendor).current_dir(here.root()));
    let toolchain = other_toolchain(&here, folder);
    // Only root can be somebody else.
    let root = fs::metadata(folder).map(|data| std::os::unix::fs::MetadataExt::uid(&data)).unwrap() == 0;
    let work = folder.join("work");
    for home in ["home", "tmp"] {
        fs::create_dir(folder.join(home)).unwrap();
    }
    let source_copy = folder.join("source");
    copy_of_sources(here.root(), &source_copy);
    let mut audit = if root {
        run(Command::new("chown").arg("--recursive").arg(format!("{NOBODY}:{NOBODY}")).arg(folder));
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups", "--"]);
        command
    } else {
        Command::new("env")
    };
    let program = folder.join("cloister-image");
    fs::copy(env!("CARGO_BIN_EXE_cloister-image"), &program).unwrap();
    audit.arg(&program).arg("audit").arg(&published).args(&logged).arg("--folder").arg(&source_copy);
    audit.arg("--vendor").arg(&vendor).arg("--work").arg(&work).current_dir(folder).env_clear();
    audit.env("PATH", format!("{}/bin:/usr/bin:/bin", toolchain.display()));
    audit.env("HOME", folder.join("home")).env("CARGO_HOME", folder.join("home/cargo"));
    audit
        .env("TMPDIR", folder.join("tmp"))
        .env("CARGO_BUILD_JOBS", "3")
        .env("LC_ALL", "C")
        .env("TZ", "Asia/Tokyo");
    let said = run(&mut audit);
    let vouched = "vouched for by builder.example/a, builder.example/b";
    let proof = Path::new(&logged[0]);
    assert_eq!(
        said,
        format!("{}: identical\n{}: identical\n{vouched}\n", published.display(), proof.display())
    );

    for path in [here.root(), folder] {
        let path = path.to_str().unwrap().as_bytes();
        assert!(!mine.windows(path.len()).any(|part| part == path), "the ROM holds a path of this machine");
    }

    // One byte of one string in the source is another.
    if root {
        chown(&work, Some(0), Some(0)).unwrap();
    }
    let changed = work.join("source/service/src/http/response.rs");
    let text = fs::read_to_string(&changed).unwrap();
    assert!(text.contains("no-store"));
    fs::write(&changed, text.replacen("no-store", "no-stare", 1)).unwrap();
    let there = Checkout::at(&work.join("source")).unwrap();
    let kernel = freestanding::build_in(&there, Program::Kernel, &work.join("target/freestanding"));
    let kernel = fs::read(kernel.unwrap_or_else(|error| panic!("{error}"))).unwrap();
    let comparison = compare::roms(&rom_of(&kernel), &mine, &kernel);
    assert!(!comparison.identical);
    let named = comparison
        .differences
        .iter()
        .find(|place| place.rebuilt.1.contains("no-stare") && place.published.1.contains("no-store"));
    let named = named.unwrap_or_else(|| panic!("{comparison}"));
    assert_eq!((named.section.as_str(), named.bytes), (".rodata", 1), "{comparison}");
}

/// The checkout without what was built in it.
fn copy_of_sources(from: &Path, to: &Path) {
    let mut tar = Command::new("sh");
    tar.arg("-c").arg("mkdir \"$2\" && tar -C \"$1\" --exclude=./target --exclude=./out --exclude=./.git -cf - . | tar -C \"$2\" -xf -");
    run(tar.arg("sh").arg(from).arg(to));
}
