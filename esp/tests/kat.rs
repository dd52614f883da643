//! Whole packets from elsewhere: the example of RFC 7634, and one packet per suite that OpenSSL
//! 3 sealed with the same keys.

mod common;

use common::*;
use obol_esp::{Hash, Inbound, Mode, Outbound, SaParams, Suite};
use zeroize::Zeroizing;

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text.replace([' ', '\n'], "")).expect("hex")
}

/// The ping of RFC 7634 appendix A.
const PING: &str = "
    45000054 a6f20000 4001e778 c6336405 c0000205 08005b7a 3a080000 553bec10
    00073627 08090a0b 0c0d0e0f 10111213 14151617 18191a1b 1c1d1e1f 20212223
    24252627 28292a2b 2c2d2e2f 30313233 34353637";

#[test]
fn rfc_7634_appendix_a_opens() {
    let esp = bytes(
        "01020304 00000005 10111213 14151617
         24039428 b97f417e 3c13753a 4f05087b 67c352e6 a7fab1b9 82d466ef 407ae5c6
         14ee8099 d52844eb 61aa95df ab4c02f7 2aa71e7c 4c4f64c9 befe2fac c638e8f3
         cbec163f ac469b50 2773f6fb 94e664da 9165b828 29f641e0
         76aaa826 6b7fb0f7 b11b3699 07e1ad43",
    );
    let key = (0x80..=0x9f).chain(0xa0..=0xa3).collect();
    let params = SaParams {
        spi: 0x0102_0304,
        encr_key: Zeroizing::new(key),
        ..params(Suite::ChaCha20Poly1305, Mode::Tunnel)
    };
    let mut inbound = Inbound::new(params).unwrap();
    assert_eq!(open(&mut inbound, &esp, outer(4, 0)), Ok(bytes(PING)));
}

//= test rfc4303 2.2-2
#[test]
fn every_suite_seals_what_openssl_sealed_and_opens_it() {
    for (suite, esn, esp) in PACKETS {
        let make = || SaParams {
            esn: *esn,
            ..params(*suite, Mode::Tunnel)
        };
        let mut outbound = Outbound::new(make()).unwrap();
        let mut inbound = Inbound::new(make()).unwrap();
        let esp = bytes(esp);
        assert_eq!(seal(&mut outbound, &bytes(PING)), esp, "{suite:?} {esn}");
        assert_eq!(
            open(&mut inbound, &esp, outer(6, 0)),
            Ok(bytes(PING)),
            "{suite:?} {esn}"
        );
    }
}

/// Suite, ESN and the first packet of an SA with the keys of `common::params`. The IVs are those
/// that the suite makes for sequence number 1.
const PACKETS: &[(Suite, bool, &str)] = &[
    (
        Suite::AesGcm16 { key_bits: 128 },
        false,
        "\
     c0de0001000000010000000000000001c3aed17612643c1d720bcd6e7246b562e5f58c03ecb5a581b4ab\
     663983ed19c415143e40e3e68e10cb50ceb4cfcde5f672a54b7486733fd5198788c55b4e9a3e63b6c90e\
     9c1e4fffcb8705aba4a1f3f70c49abf5721168da8cd4c440a68d0cb8c2c0b8b1cc7509c7",
    ),
    (
        Suite::AesGcm16 { key_bits: 128 },
        true,
        "\
     c0de0001000000010000000000000001c3aed17612643c1d720bcd6e7246b562e5f58c03ecb5a581b4ab\
     663983ed19c415143e40e3e68e10cb50ceb4cfcde5f672a54b7486733fd5198788c55b4e9a3e63b6c90e\
     9c1e4fffcb8705aba4a1f3f70c49abf5721168da16bd0cdefcc11cd33d0d95825808051a",
    ),
    (
        Suite::AesGcm16 { key_bits: 256 },
        false,
        "\
     c0de00010000000100000000000000011265f732676dec23c57a181f4eb0b6a7c8d86e1d72cc86da1841\
     e3b17582496e76e53a1ba3a7f3cb31c04be680b8df8454d2c90e1984fd7dfac9ca14470b44a2194fe53f\
     6a1498fae5d462c4d95939110bce97ac24c27baf7cca830e6a9d75c82a5c1e2155aa2fd1",
    ),
    (
        Suite::AesGcm16 { key_bits: 256 },
        true,
        "\
     c0de00010000000100000000000000011265f732676dec23c57a181f4eb0b6a7c8d86e1d72cc86da1841\
     e3b17582496e76e53a1ba3a7f3cb31c04be680b8df8454d2c90e1984fd7dfac9ca14470b44a2194fe53f\
     6a1498fae5d462c4d95939110bce97ac24c27baf8f868a16fdb2079fe1de1724444ba99e",
    ),
    (
        Suite::ChaCha20Poly1305,
        false,
        "\
     c0de00010000000100000000000000012302c74c6ba4faf950254de54d9da57e59e1d078723c5134bb57\
     1c6a51c7b7eaa4357ec7149b1b3fe23df78dcf9b84778ed68e23e9ad60736edad924a64dd44756074c15\
     d8fc51ebc8d4bef0a07efab0ec0e8835f172a832921a97b8533afc2b39a677bae762d65f",
    ),
    (
        Suite::ChaCha20Poly1305,
        true,
        "\
     c0de00010000000100000000000000012302c74c6ba4faf950254de54d9da57e59e1d078723c5134bb57\
     1c6a51c7b7eaa4357ec7149b1b3fe23df78dcf9b84778ed68e23e9ad60736edad924a64dd44756074c15\
     d8fc51ebc8d4bef0a07efab0ec0e8835f172a83202f4d693b3d32286dedf705dda225225",
    ),
    (
        Suite::AesCbcHmac {
            key_bits: 128,
            hash: Hash::Sha256,
        },
        false,
        "\
     c0de000100000001182dc6b706d143a0c858fd40e045d1aba7e477c6dfc8192c1a1a652eb672b084b62b\
     b2eefcd8658f6d562bd3c8b829682e81edca1180f001813b628c019b9984ef65a2f45109cb03d08b0964\
     55ad3cbb1f1b3bd9aa15754360c7d6fd6b2eb2d38e9958750db56d6df63d669cdc4b1cf4cceb4651a897\
     5ea2dc97a82013d1e912",
    ),
    (
        Suite::AesCbcHmac {
            key_bits: 128,
            hash: Hash::Sha256,
        },
        true,
        "\
     c0de000100000001182dc6b706d143a0c858fd40e045d1aba7e477c6dfc8192c1a1a652eb672b084b62b\
     b2eefcd8658f6d562bd3c8b829682e81edca1180f001813b628c019b9984ef65a2f45109cb03d08b0964\
     55ad3cbb1f1b3bd9aa15754360c7d6fd6b2eb2d38e9958750db56d6df63d669cdc4b1cf4405d0e139ba6\
     beec8c1c3b828d3f6fa8",
    ),
    (
        Suite::AesCbcHmac {
            key_bits: 192,
            hash: Hash::Sha256,
        },
        false,
        "\
     c0de000100000001edbea59b4257489844e20991028485b1217bb467d222efefe4220c6c40e7c8c4227f\
     101ee4b5bb2739fe4025eb7a97bcb8bfd789babaa13379f21543750c82cffb30d83477fd08874b1eef21\
     daaae42296872e39ac1beb4886bc4d0261e565bf365b177c2eb82c53b399ea667267a42b41d76076840f\
     eef59dfa36c161a42c8b",
    ),
    (
        Suite::AesCbcHmac {
            key_bits: 192,
            hash: Hash::Sha256,
        },
        true,
        "\
     c0de000100000001edbea59b4257489844e20991028485b1217bb467d222efefe4220c6c40e7c8c4227f\
     101ee4b5bb2739fe4025eb7a97bcb8bfd789babaa13379f21543750c82cffb30d83477fd08874b1eef21\
     daaae42296872e39ac1beb4886bc4d0261e565bf365b177c2eb82c53b399ea667267a42b39f1faffdbf3\
     b7f7f0ca0d39279d9381",
    ),
    (
        Suite::AesCbcHmac {
            key_bits: 256,
            hash: Hash::Sha256,
        },
        false,
        "\
     c0de000100000001c8681781fa256af7f24af6558f6f8b0e4b3d44ce9c3b1225e9b39565b504f96704e6\
     5babb0131349422ec0fae4b7e519f240368f8d58bcfb75fa6e58d3d1e285446142d4b217e44575fe6b05\
     532e7f60f307ad7e5a0bf33cc2d89ae3c0c727596acb82bb5343f5f1c59cccf5963d660199434ae6a7cc\
     0b4f84a292b11253b461",
    ),
    (
        Suite::AesCbcHmac {
            key_bits: 256,
            hash: Hash::Sha256,
        },
        true,
        "\
     c0de000100000001c8681781fa256af7f24af6558f6f8b0e4b3d44ce9c3b1225e9b39565b504f96704e6\
     5babb0131349422ec0fae4b7e519f240368f8d58bcfb75fa6e58d3d1e285446142d4b217e44575fe6b05\
     532e7f60f307ad7e5a0bf33cc2d89ae3c0c727596acb82bb5343f5f1c59cccf5963d6601b65e1fd94da1\
     2b305cfdfe6bc56a0aa5",
    ),
    (
        Suite::AesCbcHmac {
            key_bits: 256,
            hash: Hash::Sha384,
        },
        false,
        "\
     c0de000100000001ea2a0799f7327ea5f151cc985e3be7cc6cec83119413d84118bf6aa937508e360bff\
     c0de26b7654337d16513ce2057cf43fd4f2801653e6b021fabbca35962327133204ff287a89a1561c6c4\
     4771fb1567497404342787d4c702801ff940ae996030ee656746bca2c5ce74f53f9b3a09c95bfb8c6a8b\
     82a6d3f5c9ade244646be749b5eac6d05fa4",
    ),
    (
        Suite::AesCbcHmac {
            key_bits: 256,
            hash: Hash::Sha384,
        },
        true,
        "\
     c0de000100000001ea2a0799f7327ea5f151cc985e3be7cc6cec83119413d84118bf6aa937508e360bff\
     c0de26b7654337d16513ce2057cf43fd4f2801653e6b021fabbca35962327133204ff287a89a1561c6c4\
     4771fb1567497404342787d4c702801ff940ae996030ee656746bca2c5ce74f53f9b3a091f3ed7a52866\
     ef51424f580408164451b907dc0aa8f49185",
    ),
    (
        Suite::AesCbcHmac {
            key_bits: 256,
            hash: Hash::Sha512,
        },
        false,
        "\
     c0de0001000000019157e1937575d6764cf2444d267baca22143e476bd5bcd70e5ee520cb332749ef7dc\
     35c939f28c3ac7e3baa7e57dea652687fa96d9af441b5caf456217532702d1f6e7acdba213ebe833f86a\
     4d87c01024581df954f39c0d1b4704a0369368c270cced1781309ff50386954a3afb42377d90f25c361d\
     f31a3e111295593a63664914b17d260f8060b4b88d8f85ceacad",
    ),
    (
        Suite::AesCbcHmac {
            key_bits: 256,
            hash: Hash::Sha512,
        },
        true,
        "\
     c0de0001000000019157e1937575d6764cf2444d267baca22143e476bd5bcd70e5ee520cb332749ef7dc\
     35c939f28c3ac7e3baa7e57dea652687fa96d9af441b5caf456217532702d1f6e7acdba213ebe833f86a\
     4d87c01024581df954f39c0d1b4704a0369368c270cced1781309ff50386954a3afb42378e0bfae73efb\
     fc53e91dbad68463dff956d233dfbdd7896894d2b9c57cde675a",
    ),
    (
        Suite::TripleDesCbcHmac { hash: Hash::Sha256 },
        false,
        "\
     c0de000100000001e417be713d74c11514f65c5ef80d8a9d433bfab181039fd7e7b420eafb38a5388a2a\
     ef0ca6b61123698ef352a4e8520351b4fb2aabb009ca3cdd9a756b1ff9254d7d0b39e48783182ab9b4a4\
     0b5975c3cf58a708f77914177518588c6124804c00bc0ddc00d3be723f7c670f9d8ce4fa",
    ),
    (
        Suite::TripleDesCbcHmac { hash: Hash::Sha256 },
        true,
        "\
     c0de000100000001e417be713d74c11514f65c5ef80d8a9d433bfab181039fd7e7b420eafb38a5388a2a\
     ef0ca6b61123698ef352a4e8520351b4fb2aabb009ca3cdd9a756b1ff9254d7d0b39e48783182ab9b4a4\
     0b5975c3cf58a708f77914177518588c6124804ca4e893d35b712655de6d0673ff0edf81",
    ),
];
