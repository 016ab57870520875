//! What the tests share: programs, one image, one development chain, one policy.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use xtask::guest::{Guest, Start, development_root};
use xtask::{build, guest};

/// An image with all that goes with it.
pub struct Fixture {
    /// Holds `cloister.rom`, `cloister.igvm` and `digests.json`.
    pub folder: PathBuf,
}

impl Fixture {
    /// Builds it once for all tests of this process.
    pub fn get() -> &'static Self {
        static FIXTURE: OnceLock<Fixture> = OnceLock::new();
        FIXTURE.get_or_init(|| {
            xtask::setup::for_ci().unwrap();
            build::programs().unwrap();
            let folder = build::target().unwrap().join("whole-system");
            std::fs::create_dir_all(&folder).unwrap();
            build::image(&folder).unwrap();
            Fixture { folder }
        })
    }

    /// The image.
    pub fn rom(&self) -> PathBuf {
        self.folder.join("cloister.rom")
    }

    /// The same image in its other container.
    pub fn igvm(&self) -> PathBuf {
        self.folder.join("cloister.igvm")
    }

    /// The launcher's state; it keeps the development chain in it.
    pub fn state(&self) -> PathBuf {
        self.folder.join("development")
    }

    /// The model's root, once a guest was booted.
    pub fn root(&self) -> PathBuf {
        development_root(&self.state())
    }

    /// Boots a guest with the default model, and gives the policy that accepts it.
    pub fn boot(&self, arguments: &[&str]) -> (Guest, PathBuf) {
        let guest = Guest::boot(&self.start(&build::weights(), &self.state(), arguments)).unwrap();
        let policy = guest::policy(&self.folder, Some(&self.root())).unwrap();
        (guest, policy)
    }

    /// Starts a guest that is not expected to come up and returns how the launcher ended.
    pub fn fail_to_boot(&self, weights: &Path, arguments: &[&str]) -> (i32, String) {
        let mut guest = Guest::start(&self.start(weights, &self.state(), arguments)).unwrap();
        let status = guest.wait(std::time::Duration::from_secs(240)).unwrap();
        (status.code().expect("an exit code, not a signal"), guest.output())
    }

    /// The command line of a guest.
    pub fn start<'a>(&self, weights: &'a Path, state: &Path, arguments: &[&str]) -> Start<'a> {
        self.start_image(&self.rom(), weights, state, arguments)
    }

    /// The command line of a guest that starts from `image`.
    pub fn start_image<'a>(
        &self,
        image: &Path,
        weights: &'a Path,
        state: &Path,
        arguments: &[&str],
    ) -> Start<'a> {
        let mut all = vec!["--state".to_owned(), state.display().to_string()];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        // The fixture lives as long as the process.
        let image: &'static Path = Box::leak(image.to_path_buf().into_boxed_path());
        Start { image, weights, arguments: all }
    }
}

/// The sample chat.
pub fn sample() -> PathBuf {
    build::root().join("models/samples/family-android.txt")
}

/// Runs `cloister` to its end.
pub fn cloister(arguments: &[&str]) -> Output {
    Command::new(build::program("cloister").unwrap()).args(arguments).output().unwrap()
}

/// Runs `cloister summarize` on a chat.
pub fn summarize(chat: &Path, server: &str, policy: &Path, last: &str, more: &[&str]) -> Output {
    let chat = chat.to_str().unwrap();
    let policy = policy.to_str().unwrap();
    let arguments = ["summarize", chat, "--last", last, "--server", server, "--policy", policy];
    cloister(&[&arguments, more].concat())
}

/// Exit code and standard error of a program.
pub fn failure(output: &Output) -> (i32, String) {
    (output.status.code().expect("an exit code"), String::from_utf8_lossy(&output.stderr).into_owned())
}
