//! Octets that must not leak: wiped on drop, never printed, compared in constant time only.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

//= rfc7296 2.12-1
//= security S-63
/// A secret of any length.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the octets over.
    pub fn new(octets: Vec<u8>) -> Self {
        Self(Zeroizing::new(octets))
    }

    /// The only way in.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in octets.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Equality in time that depends on the lengths only.
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl From<&[u8]> for Secret {
    fn from(octets: &[u8]) -> Self {
        Self::new(octets.to_vec())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    fn is_wiped<T: ZeroizeOnDrop>(_: &T) {}

    // That this compiles is the test: whoever takes the wiping away sees it here.
    //= test rfc7296 2.12-1
    //= test security S-63
    #[test]
    fn secrets_are_wiped_when_they_are_dropped() {
        let secret = Secret::new(vec![7; 32]);
        is_wiped(&secret.0);
        assert_eq!(secret.expose(), [7; 32]);
    }
}
