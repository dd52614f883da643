//! Private keys in an NSS database (`key4.db`), where pluto keeps them. It is read, never written.
//!
//! The database is SQLite. A private key is a row of `nssPrivate`; its columns are the attributes of
//! PKCS#11, `a` and the number in hex. Numbers that are secret are encrypted with a key that comes
//! from the password, which is most often empty.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use aes::Aes256;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt as _, KeyIvInit as _};
use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use der::{Decode as _, Encode as _, Reader as _, SliceReader};
use obol_ike::crypto::ecdsa::{Curve, EcdsaPrivate};
use obol_ike::crypto::keyfile;
use obol_ike::crypto::private_key::PrivateKey;
use rsa::pkcs1::{RsaPrivateKey, UintRef};
use rusqlite::{Connection, OpenFlags};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The file with private keys.
const FILE: &str = "key4.db";
/// What NSS had before SQLite.
const BERKELEY: &str = "key3.db";
/// Where the password is, beside the database or in [`CONFIG_DIRECTORY`].
const PASSWORD_FILE: &str = "nsspassword";
/// Where pluto's files are.
const CONFIG_DIRECTORY: &str = "/etc/ipsec.d";

const PBES2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.13");
const PBKDF2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.12");
const AES256_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.42");
const OLD_3DES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.5.1.3");

/// secp256r1, secp384r1, secp521r1.
const CURVES: [(ObjectIdentifier, Curve); 3] = [
    (
        ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"),
        Curve::P256,
    ),
    (ObjectIdentifier::new_unwrap("1.3.132.0.34"), Curve::P384),
    (ObjectIdentifier::new_unwrap("1.3.132.0.35"), Curve::P521),
];

/// More would only slow down the start: NSS takes 10,000 for a password.
const MOST_ITERATIONS: u32 = 1_000_000;

/// What stands in the database, encrypted, so that a password can be checked.
const CHECK: &[u8] = b"password-check";

/// Why there are no keys to be had from a database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NssError {
    /// There is no database.
    #[error("there is no {FILE} in {}", .0.display())]
    Missing(PathBuf),
    /// It is one of the kind that NSS had before 2018.
    #[error("{} has the old Berkeley database; convert it with `certutil -K -d sql:{}`", .0.display(), .0.display())]
    Berkeley(PathBuf),
    /// SQLite says so.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: rusqlite::Error,
    },
    /// The password is another one.
    #[error("the password of {} is neither in {} nor in {CONFIG_DIRECTORY}/{PASSWORD_FILE}, and is not empty", .database.display(), .file.display())]
    Password {
        /// The database.
        database: PathBuf,
        /// Where the password was looked for first.
        file: PathBuf,
    },
    /// It is not what NSS writes.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

/// A private key and its identifier.
#[derive(Debug)]
pub(crate) struct NssKey {
    /// CKAID: 40 hexadecimal digits.
    pub(crate) ckaid: String,
    /// The key.
    pub(crate) key: PrivateKey,
}

/// The keys of a database.
#[derive(Debug, Default)]
pub(crate) struct NssKeys {
    /// Those that obol can use.
    pub(crate) keys: Vec<NssKey>,
    /// Those that it cannot, by CKAID, and why.
    pub(crate) others: Vec<(String, &'static str)>,
}

/// Whether there is a database in a directory.
pub(crate) fn is_there(directory: &Path) -> bool {
    directory.join(FILE).exists() || directory.join(BERKELEY).exists()
}

/// Reads all private keys of the database in a directory.
///
/// # Errors
/// There is none, or it cannot be read, or its password is not known.
pub(crate) fn read(directory: &Path) -> Result<NssKeys, NssError> {
    let path = directory.join(FILE);
    if !path.exists() {
        return Err(match directory.join(BERKELEY).exists() {
            true => NssError::Berkeley(directory.to_owned()),
            false => NssError::Missing(directory.to_owned()),
        });
    }
    let database = Database::open(&path)?;
    let opener = database.opener(directory)?;
    database.keys(&opener)
}

/// Octets in hexadecimal.
pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The password: behind the name of the token, or alone in the file; empty without a file.
fn password(path: &Path) -> Zeroizing<String> {
    let text = Zeroizing::new(std::fs::read_to_string(path).unwrap_or_default());
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut alone = None;
    for line in lines {
        match line.split_once(':') {
            Some(("NSS Certificate DB" | "NSS FIPS 140-2 Certificate DB", password)) => {
                return Zeroizing::new(password.to_owned());
            }
            Some(_) => {}
            None => alone = Some(line),
        }
    }
    Zeroizing::new(alone.unwrap_or_default().to_owned())
}

struct Database {
    path: PathBuf,
    connection: Connection,
}

/// Decrypts attributes.
struct Opener {
    /// SHA-1 of the salt of the database and the password.
    secret: Zeroizing<[u8; 20]>,
}

/// A row of `nssPrivate` that is a private key, as it stands there.
struct Row {
    key_type: u32,
    ckaid: String,
    modulus: Vec<u8>,
    exponent: Vec<u8>,
    private_exponent: Vec<u8>,
    primes: [Vec<u8>; 2],
    exponents: [Vec<u8>; 2],
    coefficient: Vec<u8>,
    /// The curve of an ECDSA key, as an object identifier in DER.
    curve: Vec<u8>,
    /// Its private number.
    value: Vec<u8>,
}

impl Database {
    fn open(path: &Path) -> Result<Self, NssError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(path, flags).map_err(|error| NssError::Unreadable {
                path: path.to_owned(),
                error,
            })?;
        Ok(Self {
            path: path.to_owned(),
            connection,
        })
    }

    fn unreadable(&self, error: rusqlite::Error) -> NssError {
        NssError::Unreadable {
            path: self.path.clone(),
            error,
        }
    }

    fn damaged(&self, what: &'static str) -> NssError {
        NssError::Damaged {
            path: self.path.clone(),
            what,
        }
    }

    /// Finds the password that opens the database.
    fn opener(&self, directory: &Path) -> Result<Opener, NssError> {
        let query = "SELECT item1, item2 FROM metaData WHERE id = 'password'";
        let (salt, check): (Vec<u8>, Vec<u8>) = self
            .connection
            .query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(|error| self.unreadable(error))?;
        let beside = directory.join(PASSWORD_FILE);
        let elsewhere = Path::new(CONFIG_DIRECTORY).join(PASSWORD_FILE);
        for password in [password(&beside), password(&elsewhere)] {
            let hash = Sha1::new()
                .chain_update(&salt)
                .chain_update(password.as_bytes());
            let opener = Opener {
                secret: Zeroizing::new(hash.finalize().into()),
            };
            match opener.open(&check) {
                Ok(text) if text.as_slice() == CHECK => return Ok(opener),
                Err(what) if what == OLD => return Err(self.damaged(what)),
                _ => {}
            }
        }
        Err(NssError::Password {
            database: self.path.clone(),
            file: beside,
        })
    }

    fn keys(&self, opener: &Opener) -> Result<NssKeys, NssError> {
        let query = "SELECT a100, a102, a120, a122, a123, a124, a125, a126, a127, a128, a180, a11 \
                     FROM nssPrivate WHERE a0 = x'00000003'";
        let mut statement = self
            .connection
            .prepare(query)
            .map_err(|e| self.unreadable(e))?;
        let rows = statement
            .query_map([], Row::read)
            .map_err(|e| self.unreadable(e))?;
        let mut found = NssKeys::default();
        for row in rows {
            let row = row.map_err(|e| self.unreadable(e))?;
            match row.key(opener) {
                Ok(key) => found.keys.push(NssKey {
                    ckaid: row.ckaid,
                    key,
                }),
                Err(why) => found.others.push((row.ckaid, why)),
            }
        }
        Ok(found)
    }
}

impl Row {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let octets = |index| {
            row.get::<_, Option<Vec<u8>>>(index)
                .map(Option::unwrap_or_default)
        };
        let number = |octets: Vec<u8>| octets.try_into().map_or(u32::MAX, u32::from_be_bytes);
        Ok(Self {
            key_type: number(octets(0)?),
            ckaid: hex(&octets(1)?),
            modulus: octets(2)?,
            exponent: octets(3)?,
            private_exponent: octets(4)?,
            primes: [octets(5)?, octets(6)?],
            exponents: [octets(7)?, octets(8)?],
            coefficient: octets(9)?,
            curve: octets(10)?,
            value: octets(11)?,
        })
    }

    /// The key, if it is one that obol has.
    fn key(&self, opener: &Opener) -> Result<PrivateKey, &'static str> {
        match self.key_type {
            0 => {}
            3 => return self.ecdsa(opener),
            _ => return Err("it is of a kind that obol does not have"),
        }
        let [p, q] = [opener.open(&self.primes[0])?, opener.open(&self.primes[1])?];
        let [dp, dq] = [
            opener.open(&self.exponents[0])?,
            opener.open(&self.exponents[1])?,
        ];
        let d = opener.open(&self.private_exponent)?;
        let inverse = opener.open(&self.coefficient)?;
        let der = pkcs1([
            &self.modulus,
            &self.exponent,
            &d,
            &p,
            &q,
            &dp,
            &dq,
            &inverse,
        ]);
        let der = der.map_err(|_| "its numbers are none")?;
        keyfile::parse_private(&der).map_err(|_| "its numbers are no RSA key that obol takes")
    }
}

impl Row {
    fn ecdsa(&self, opener: &Opener) -> Result<PrivateKey, &'static str> {
        let named = ObjectIdentifier::from_der(&self.curve).ok();
        let found = CURVES.iter().find(|(curve, _)| Some(*curve) == named);
        let (_, curve) = found.ok_or("it is an ECDSA key on a curve that obol does not have")?;
        let number = opener.open(&self.value)?;
        let key = EcdsaPrivate::from_number(*curve, &number);
        let key = key.ok_or("its number is none of its curve")?;
        Ok(PrivateKey::Ecdsa(Box::new(key)))
    }
}

/// An RSA private key in DER (PKCS#1) from its numbers, in the order of that.
pub(super) fn pkcs1(numbers: [&[u8]; 8]) -> Result<Zeroizing<Vec<u8>>, der::Error> {
    let [n, e, d, p, q, dp, dq, inverse] = numbers;
    let key = RsaPrivateKey {
        modulus: UintRef::new(n)?,
        public_exponent: UintRef::new(e)?,
        private_exponent: UintRef::new(d)?,
        prime1: UintRef::new(p)?,
        prime2: UintRef::new(q)?,
        exponent1: UintRef::new(dp)?,
        exponent2: UintRef::new(dq)?,
        coefficient: UintRef::new(inverse)?,
        other_prime_infos: None,
    };
    key.to_der().map(Zeroizing::new)
}

const OLD: &str = "its keys are encrypted as NSS did before 2020; `certutil -W -d sql:DIR` with a newer NSS sets the password anew";

impl Opener {
    /// The content of an encrypted attribute.
    fn open(&self, octets: &[u8]) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        const DAMAGED: &str = "an attribute of it is damaged";
        let sealed = Sealed::from_der(octets).map_err(|_| DAMAGED)?;
        if sealed.algorithm == OLD_3DES {
            return Err(OLD);
        }
        let iterations = sealed.iterations;
        if sealed.algorithm != PBES2 || !(1..=MOST_ITERATIONS).contains(&iterations) {
            return Err("it is encrypted in a way that obol does not know");
        }
        let mut key = Zeroizing::new([0; 32]);
        pbkdf2::pbkdf2_hmac::<Sha256>(&*self.secret, sealed.salt, iterations, &mut *key);
        let mut text = Zeroizing::new(sealed.content.to_vec());
        let cipher = cbc::Decryptor::<Aes256>::new(&(*key).into(), &sealed.iv.into());
        let length = cipher
            .decrypt_padded::<Pkcs7>(&mut text)
            .map_err(|_| DAMAGED)?
            .len();
        text.truncate(length);
        Ok(text)
    }
}

/// `EncryptedData` as NSS writes it: PBES2 (RFC 8018) with PBKDF2 and AES-256-CBC.
struct Sealed<'o> {
    algorithm: ObjectIdentifier,
    salt: &'o [u8],
    iterations: u32,
    iv: [u8; 16],
    content: &'o [u8],
}

impl<'o> Sealed<'o> {
    fn from_der(octets: &'o [u8]) -> Result<Self, der::Error> {
        let (scheme, content) = sequence(octets, |reader| {
            Ok((AnyRef::decode(reader)?, <&OctetStringRef>::decode(reader)?))
        })?;
        let (algorithm, parameters) = algorithm(scheme)?;
        if algorithm != PBES2 {
            return Ok(Self {
                algorithm,
                salt: &[],
                iterations: 0,
                iv: [0; 16],
                content: content.as_bytes(),
            });
        }
        let (kdf, cipher) = pair(parameters)?;
        let (kdf, kdf_parameters) = self::algorithm(kdf)?;
        let (cipher, iv) = self::algorithm(cipher)?;
        if kdf != PBKDF2 || cipher != AES256_CBC {
            return Err(der::ErrorKind::Failed.into());
        }
        let (salt, iterations) = kdf_parameters.sequence(|reader| {
            let salt = <&OctetStringRef>::decode(reader)?;
            let iterations = u32::decode(reader)?;
            // The length of the key and the PRF: what NSS writes is always the same.
            while !reader.is_finished() {
                AnyRef::decode(reader)?;
            }
            Ok::<_, der::Error>((salt, iterations))
        })?;
        // NSS takes the octets of the encoding, with tag and length, as the initialization vector.
        let iv = iv
            .to_der()?
            .try_into()
            .map_err(|_| der::ErrorKind::Failed)?;
        Ok(Self {
            algorithm,
            salt: salt.as_bytes(),
            iterations,
            iv,
            content: content.as_bytes(),
        })
    }
}

/// Opens an attribute of any octets with a key of zeros, unless that takes long.
pub(super) fn fuzz_attribute(octets: &[u8]) {
    let opener = Opener {
        secret: Zeroizing::default(),
    };
    if Sealed::from_der(octets).is_ok_and(|sealed| sealed.iterations < 100) {
        let _ = opener.open(octets);
    }
    let _: Result<ObjectIdentifier, _> = ObjectIdentifier::from_der(octets);
}

fn sequence<'o, T>(
    octets: &'o [u8],
    read: impl FnOnce(&mut SliceReader<'o>) -> Result<T, der::Error>,
) -> Result<T, der::Error> {
    AnyRef::from_der(octets)?.sequence(read)
}

fn algorithm(any: AnyRef<'_>) -> Result<(ObjectIdentifier, AnyRef<'_>), der::Error> {
    any.sequence(|reader| Ok((ObjectIdentifier::decode(reader)?, AnyRef::decode(reader)?)))
}

fn pair(any: AnyRef<'_>) -> Result<(AnyRef<'_>, AnyRef<'_>), der::Error> {
    any.sequence(|reader| Ok((AnyRef::decode(reader)?, AnyRef::decode(reader)?)))
}
