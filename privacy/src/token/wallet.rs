//! Where a client keeps its tokens: one file, mode 0600, that several processes may use.
//!
//! A token leaves the file, durably, before it is handed out. So a crash can lose one and never use one twice, which would
//! tell the gateway that two sessions are the same client's. When to fetch more is drawn at random and does not follow
//! from when tokens are used ([`Wallet::due`]).

use super::structure::Token;
use crate::file;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Tokens in a batch: the same for all, as a number of one's own would be a mark.
pub const BATCH: usize = 32;
/// With fewer tokens than this, a wallet is filled up when its time comes.
pub const LOW: usize = 32;
/// The next fetch is at least this long after one, in seconds.
pub const PAUSE: u64 = 6 * 3600;
/// And at most this much later than that, in seconds: a day, so that the hour of a fetch says nothing.
pub const JITTER: u64 = 24 * 3600;
/// A token is not used in the last seconds of its key, as a gateway's clock may be ahead.
const MARGIN: u64 = 60;

/// Most bytes of a wallet.
const MAX_FILE: u64 = 4 << 20;

/// Why a wallet does not work.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// Reading or writing.
    #[error("cannot read or write the wallet {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Others can read it.
    #[error("other users can read the wallet {}; its tokens may be spent: `chmod 600` it, or remove it", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
    },
    /// Damaged.
    #[error("the wallet {} is damaged; remove it and fetch new tokens", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// No token for this gateway.
    #[error("the wallet has no token for this gateway: fetch some")]
    Empty,
    /// No randomness.
    #[error("this machine gives no random numbers")]
    Random,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    #[serde(with = "text")]
    token: Token,
    not_after: u64,
}

/// A token in base64.
mod text {
    use super::{Engine, STANDARD, Token, Zeroizing};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub fn serialize<S: Serializer>(token: &Token, serializer: S) -> Result<S::Ok, S::Error> {
        Zeroizing::new(STANDARD.encode(token.bytes())).as_str().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Token, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        // What is wrong is not said: the error would hold parts of a token.
        let bytes = STANDARD.decode(text.as_bytes()).map(Zeroizing::new).ok();
        bytes.and_then(|bytes| Token::parse(&bytes).ok()).ok_or_else(|| de::Error::custom("not a token"))
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    /// When to look after the stock again, in seconds since 1970.
    next_fetch: u64,
    tokens: Vec<Kept>,
}

/// A wallet.
#[derive(Clone, Debug)]
pub struct Wallet {
    path: PathBuf,
}

/// The lock of a wallet, until it is dropped or the process ends.
struct Lock(#[allow(dead_code, reason = "it is held")] File);

impl Wallet {
    /// The wallet in this file, which need not be there yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn failed(&self, source: io::Error) -> WalletError {
        WalletError::File { path: self.path.clone(), source }
    }

    fn lock(&self) -> Result<Lock, WalletError> {
        // A file of its own, as the wallet itself is replaced.
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".lock");
        let mut options = OpenOptions::new();
        let file =
            options.write(true).create(true).truncate(false).mode(0o600).open(self.path.with_file_name(name));
        let file = file.map_err(|error| self.failed(error))?;
        file.lock().map_err(|error| self.failed(error))?;
        Ok(Lock(file))
    }

    fn read(&self) -> Result<Contents, WalletError> {
        let damaged = || WalletError::Damaged { path: self.path.clone() };
        let about = match fs::metadata(&self.path) {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::default()),
            Err(error) => return Err(self.failed(error)),
        };
        if about.permissions().mode() & 0o077 != 0 {
            return Err(WalletError::Permissions { path: self.path.clone() });
        }
        if about.len() > MAX_FILE {
            return Err(damaged());
        }
        let bytes = Zeroizing::new(fs::read(&self.path).map_err(|error| self.failed(error))?);
        serde_json::from_slice(&bytes).map_err(|_| damaged())
    }

    fn write(&self, contents: &Contents) -> Result<(), WalletError> {
        let bytes = serde_json::to_vec(contents).map_err(|error| self.failed(error.into()))?;
        file::replace(&self.path, &Zeroizing::new(bytes)).map_err(|error| self.failed(error))
    }

    /// Takes a token that was made for this challenge and is good at `now`, in seconds since 1970; the one that ends first.
    /// It is out of the file when this returns.
    pub fn take(&self, challenge_digest: &[u8; 32], now: u64) -> Result<Token, WalletError> {
        let _lock = self.lock()?;
        let mut contents = self.read()?;
        contents.tokens.retain(|kept| kept.not_after > now.saturating_add(MARGIN));
        contents.tokens.sort_by_key(|kept| kept.not_after);
        let fits = |kept: &Kept| kept.token.challenge_digest() == challenge_digest;
        let place = contents.tokens.iter().position(fits).ok_or(WalletError::Empty)?;
        let token = contents.tokens.remove(place).token;
        self.write(&contents)?;
        Ok(token)
    }

    /// Adds tokens that were checked and are good until `not_after`, and draws when to look after the stock again.
    pub fn add(&self, tokens: &[Token], not_after: u64, now: u64) -> Result<(), WalletError> {
        let _lock = self.lock()?;
        let mut contents = self.read()?;
        contents.tokens.retain(|kept| kept.not_after > now);
        contents.tokens.extend(tokens.iter().map(|token| Kept { token: token.clone(), not_after }));
        contents.next_fetch = next_fetch(now)?;
        self.write(&contents)
    }

    /// How many tokens for this challenge are good at `now`.
    pub fn count(&self, challenge_digest: &[u8; 32], now: u64) -> Result<usize, WalletError> {
        let contents = self.read()?;
        let good = |kept: &&Kept| {
            kept.not_after > now.saturating_add(MARGIN) && kept.token.challenge_digest() == challenge_digest
        };
        Ok(contents.tokens.iter().filter(good).count())
    }

    /// Whether it is time to fetch a batch: the hour that was drawn at the last fetch has come, and there are fewer than
    /// [`LOW`] tokens. A wallet that is nearly full at its hour gets a new hour.
    pub fn due(&self, challenge_digest: &[u8; 32], now: u64) -> Result<bool, WalletError> {
        let few = self.count(challenge_digest, now)? < LOW;
        let _lock = self.lock()?;
        let mut contents = self.read()?;
        if now < contents.next_fetch {
            return Ok(false);
        }
        if !few {
            contents.next_fetch = next_fetch(now)?;
            self.write(&contents)?;
        }
        Ok(few)
    }
}

fn next_fetch(now: u64) -> Result<u64, WalletError> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| WalletError::Random)?;
    // The remainder's bias is below 2^-47.
    Ok(now + PAUSE + u64::from_le_bytes(random) % JITTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: u8, challenge: u8) -> Token {
        let mut bytes = [number; Token::LENGTH];
        bytes[..2].copy_from_slice(&[0, 2]);
        bytes[34..66].fill(challenge);
        Token::parse(&bytes).unwrap()
    }

    fn wallet() -> (tempfile::TempDir, Wallet) {
        let folder = tempfile::tempdir().unwrap();
        let wallet = Wallet::new(&folder.path().join("wallet.json"));
        (folder, wallet)
    }

    #[test]
    fn c2_a_token_is_handed_out_once_also_to_many_processes() {
        let (_folder, wallet) = wallet();
        let tokens: Vec<Token> = (0..40).map(|number| token(number, 9)).collect();
        wallet.add(&tokens, 10_000, 100).unwrap();
        assert!(matches!(wallet.take(&[8; 32], 100), Err(WalletError::Empty)), "another gateway's");
        let mut taken: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let take = || {
                let mut mine = Vec::new();
                while let Ok(token) = wallet.take(&[9; 32], 100) {
                    mine.push(token.bytes().to_vec());
                }
                mine
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        taken.sort();
        taken.dedup();
        assert_eq!(taken.len(), 40);
    }

    #[test]
    fn c2_a_token_is_out_of_the_file_before_it_is_used() {
        let (_folder, wallet) = wallet();
        wallet.add(&[token(1, 9)], 10_000, 100).unwrap();
        let token = wallet.take(&[9; 32], 100).unwrap();
        let file = fs::read_to_string(wallet.path()).unwrap();
        assert!(!file.contains(&STANDARD.encode(token.bytes())));
        // As after a crash: another process finds nothing to use again.
        assert!(matches!(Wallet::new(wallet.path()).take(&[9; 32], 100), Err(WalletError::Empty)));
    }

    #[test]
    fn c2_the_hour_of_a_fetch_is_drawn_and_does_not_follow_from_use() {
        let (_folder, wallet) = wallet();
        assert!(wallet.due(&[9; 32], 0).unwrap(), "an empty wallet");
        let mut hours = Vec::new();
        for _ in 0..200 {
            wallet.add(&[token(1, 9), token(2, 9)], u64::MAX, 1_000).unwrap();
            let drawn = wallet.read().unwrap().next_fetch;
            assert!((1_000 + PAUSE..1_000 + PAUSE + JITTER).contains(&drawn));
            wallet.take(&[9; 32], 1_000).unwrap();
            assert_eq!(wallet.read().unwrap().next_fetch, drawn, "use moves it");
            assert!(!wallet.due(&[9; 32], drawn - 1).unwrap());
            hours.push((drawn - 1_000 - PAUSE) * 8 / JITTER);
        }
        // Each eighth of a day gets 25 of 200 on average; 5 or fewer is a chance below 10^-6.
        assert!((0..8).all(|eighth| hours.iter().filter(|hour| **hour == eighth).count() > 5), "{hours:?}");
        let (_folder, wallet) = self::wallet();
        let full: Vec<Token> = (0..LOW as u8).map(|number| token(number, 9)).collect();
        wallet.add(&full, u64::MAX, 1_000).unwrap();
        let hour = wallet.read().unwrap().next_fetch;
        assert!(!wallet.due(&[9; 32], hour).unwrap(), "it is full");
        assert!(wallet.read().unwrap().next_fetch > hour);
    }

    #[test]
    fn c2_tokens_end_with_their_epoch_and_the_oldest_go_first() {
        let (_folder, wallet) = wallet();
        wallet.add(&[token(2, 9)], 2_000, 100).unwrap();
        wallet.add(&[token(1, 9)], 1_000, 100).unwrap();
        assert_eq!(wallet.count(&[9; 32], 100).unwrap(), 2);
        assert_eq!(wallet.take(&[9; 32], 100).unwrap(), token(1, 9));
        wallet.add(&[token(1, 9)], 1_000, 100).unwrap();
        assert_eq!(wallet.take(&[9; 32], 1_000 - MARGIN).unwrap(), token(2, 9));
        assert!(matches!(wallet.take(&[9; 32], 1_000 - MARGIN), Err(WalletError::Empty)));
    }

    #[test]
    fn c2_a_wallet_that_others_can_read_is_not_used() {
        let (_folder, wallet) = wallet();
        wallet.add(&[token(1, 9)], 10_000, 100).unwrap();
        assert_eq!(fs::metadata(wallet.path()).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(wallet.path(), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(wallet.take(&[9; 32], 100), Err(WalletError::Permissions { .. })));
        fs::set_permissions(wallet.path(), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(wallet.path(), "{").unwrap();
        assert!(matches!(wallet.take(&[9; 32], 100), Err(WalletError::Damaged { .. })));
    }
}
