//! Who may have tokens, and the authenticator for a single machine: a file of accounts.

use crate::file::{self, FileError};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use zeroize::Zeroizing;

/// An account, as its tokens are counted under: a hash of who says so and of its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account(pub [u8; 32]);

impl Account {
    /// The account that `authority` calls `name`.
    pub fn new(authority: &str, name: &str) -> Self {
        let mut w = wire::canonical::Writer::new("cloister account v1");
        w.bytes(authority.as_bytes()).bytes(name.as_bytes());
        Self(Sha256::digest(w.finish()).into())
    }
}

/// Why a request has no account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No credential, or one that is not good. It is not said which.
    #[error("the credential is not that of an account")]
    Refused,
    /// Whoever vouches for accounts does not answer.
    #[error("accounts cannot be checked now: try again later")]
    Unavailable,
}

/// The answer to come.
pub type Authenticating<'a> = Pin<Box<dyn Future<Output = Result<Account, Denied>> + Send + 'a>>;

/// Tells accounts by the bearer credential of a request.
pub trait Authenticate: Send + Sync {
    /// The account of a credential.
    fn account<'a>(&'a self, bearer: &'a str) -> Authenticating<'a>;
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    name: String,
    #[serde(with = "hex::serde")]
    secret_sha256: [u8; 32],
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountsFile {
    #[serde(rename = "account", default)]
    accounts: Vec<Listed>,
}

/// Why a file of accounts cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A name that no account can have.
    #[error("an account's name is 1 to 64 letters, digits, `.`, `-`, `_`, `@`")]
    Name,
    /// The name is taken.
    #[error("there is an account {0} already")]
    Taken(String),
    /// No such account.
    #[error("there is no account {0}")]
    Unknown(String),
    /// No randomness.
    #[error("this machine gives no random numbers")]
    Random,
}

/// A file of accounts: names, and SHA-256 of their secrets. Secrets are 32 random bytes that this program makes and nobody
/// chooses, so a plain hash of one cannot be searched.
#[derive(Debug)]
pub struct Accounts {
    path: PathBuf,
    file: AccountsFile,
}

impl Accounts {
    /// Reads a file; there are no accounts where there is none.
    pub fn load(path: &Path) -> Result<Self, AccountsError> {
        let file = match fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| FileError::format(path, error))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => AccountsFile::default(),
            Err(error) => return Err(FileError::io(path)(error).into()),
        };
        Ok(Self { path: path.into(), file })
    }

    /// Adds an account and writes its credential to a new file, which only this user can read.
    pub fn add(&mut self, name: &str, secret_file: &Path) -> Result<(), AccountsError> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b".-_@".contains(&b);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(good) {
            return Err(AccountsError::Name);
        }
        if self.file.accounts.iter().any(|account| account.name == name) {
            return Err(AccountsError::Taken(name.into()));
        }
        let mut secret = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *secret).map_err(|_| AccountsError::Random)?;
        let text = Zeroizing::new(format!("{name}:{}\n", URL_SAFE_NO_PAD.encode(*secret)));
        file::create(secret_file, text.as_bytes()).map_err(FileError::io(secret_file))?;
        self.file.accounts.push(Listed { name: name.into(), secret_sha256: Sha256::digest(*secret).into() });
        self.save()
    }

    /// Removes an account. Tokens that it has stay good: nobody can tell which they are.
    pub fn remove(&mut self, name: &str) -> Result<(), AccountsError> {
        let before = self.file.accounts.len();
        self.file.accounts.retain(|account| account.name != name);
        if self.file.accounts.len() == before {
            return Err(AccountsError::Unknown(name.into()));
        }
        self.save()
    }

    /// The accounts' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.file.accounts.iter().map(|account| account.name.as_str())
    }

    fn save(&self) -> Result<(), AccountsError> {
        let text =
            toml::to_string_pretty(&self.file).map_err(|error| FileError::format(&self.path, error))?;
        Ok(file::replace(&self.path, text.as_bytes()).map_err(FileError::io(&self.path))?)
    }

    fn find(&self, bearer: &str) -> Option<Account> {
        let (name, secret) = bearer.split_once(':')?;
        let mut bytes = Zeroizing::new([0; 33]);
        let length = URL_SAFE_NO_PAD.decode_slice(secret, &mut *bytes).ok()?;
        let hash: [u8; 32] = Sha256::digest(&bytes[..length]).into();
        let listed = self.file.accounts.iter().find(|account| account.name == name)?;
        verify_slices_are_equal(&hash, &listed.secret_sha256).ok()?;
        Some(Account::new("static", name))
    }
}

impl Authenticate for Accounts {
    fn account<'a>(&'a self, bearer: &'a str) -> Authenticating<'a> {
        Box::pin(std::future::ready(self.find(bearer).ok_or(Denied::Refused)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_told_by_its_secret_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts.toml");
        let mut accounts = Accounts::load(&path).unwrap();
        accounts.add("ada", &folder.path().join("ada")).unwrap();
        accounts.add("bob", &folder.path().join("bob")).unwrap();
        let secret = |name| fs::read_to_string(folder.path().join(name)).unwrap().trim().to_owned();
        let (ada, bob) = (secret("ada"), secret("bob"));
        let stored = fs::read_to_string(&path).unwrap();
        assert!(!stored.contains(ada.split_once(':').unwrap().1), "the file holds no secret");

        let mut accounts = Accounts::load(&path).unwrap();
        assert_eq!(accounts.find(&ada), Some(Account::new("static", "ada")));
        let swapped = format!("ada:{}", bob.split_once(':').unwrap().1);
        let cut = &ada[..ada.len() - 1];
        for wrong in ["", "ada", "ada:", ":", "eve:AAAA", &swapped, cut, &format!("{ada}AAAAAAAAAAAAAAAA")] {
            assert_eq!(accounts.find(wrong), None, "{wrong}");
        }
        assert!(matches!(accounts.add("ada", &folder.path().join("x")), Err(AccountsError::Taken(_))));
        assert!(matches!(accounts.add("a b", &folder.path().join("x")), Err(AccountsError::Name)));
        accounts.remove("ada").unwrap();
        assert_eq!(Accounts::load(&path).unwrap().find(&ada), None);
        assert!(matches!(accounts.remove("ada"), Err(AccountsError::Unknown(_))));
    }
}
