//! IKEv2 code points (IANA registry "Internet Key Exchange Version 2 (IKEv2) Parameters").
//!
//! Every number is an open newtype: a value that obol does not know survives, compares and
//! prints as its number, so a parser never has to refuse a packet for a new code point.

macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident($int:ty) { $($(#[$vdoc:meta])* $konst:ident = $value:expr, $text:expr;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, PartialEq, Ord, PartialOrd, Hash)]
        pub struct $name(pub $int);

        #[allow(missing_docs, reason = "the names are the registry's own")]
        impl $name {
            $($(#[$vdoc])* pub const $konst: Self = Self($value);)*

            /// The registry's name, if the number is one that obol knows.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}", self.0),
                }
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

numbers! {
    /// Exchange type, RFC 7296 section 3.1.
    ExchangeType(u8) {
        IKE_SA_INIT = 34, "IKE_SA_INIT";
        IKE_AUTH = 35, "IKE_AUTH";
        CREATE_CHILD_SA = 36, "CREATE_CHILD_SA";
        INFORMATIONAL = 37, "INFORMATIONAL";
        /// RFC 5723.
        IKE_SESSION_RESUME = 38, "IKE_SESSION_RESUME";
    }
}

impl ExchangeType {
    /// Whether it is the first exchange of an IKE SA, which nothing protects.
    pub fn begins_ike_sa(self) -> bool {
        matches!(self, Self::IKE_SA_INIT | Self::IKE_SESSION_RESUME)
    }
}

numbers! {
    /// Payload type, RFC 7296 section 3.2 and RFC 7383.
    PayloadType(u8) {
        NONE = 0, "none";
        SA = 33, "SA";
        KE = 34, "KE";
        ID_I = 35, "IDi";
        ID_R = 36, "IDr";
        CERT = 37, "CERT";
        CERTREQ = 38, "CERTREQ";
        AUTH = 39, "AUTH";
        NONCE = 40, "Nonce";
        NOTIFY = 41, "N";
        DELETE = 42, "D";
        VENDOR_ID = 43, "V";
        TS_I = 44, "TSi";
        TS_R = 45, "TSr";
        SK = 46, "SK";
        CP = 47, "CP";
        EAP = 48, "EAP";
        SKF = 53, "SKF";
        PS = 54, "PS";
    }
}

numbers! {
    /// Protocol identifier of a proposal, notify or delete, RFC 7296 section 3.3.1.
    ProtocolId(u8) {
        NONE = 0, "none";
        IKE = 1, "IKE";
        AH = 2, "AH";
        ESP = 3, "ESP";
    }
}

numbers! {
    /// Transform type, RFC 7296 section 3.3.2.
    TransformType(u8) {
        ENCR = 1, "ENCR";
        PRF = 2, "PRF";
        INTEG = 3, "INTEG";
        KE = 4, "KE";
        ESN = 5, "ESN";
    }
}

numbers! {
    /// Encryption algorithm (transform type 1).
    EncrId(u16) {
        DES = 2, "DES";
        DES3 = 3, "3DES";
        NULL = 11, "NULL";
        AES_CBC = 12, "AES_CBC";
        AES_GCM_16 = 20, "AES_GCM_16";
        CHACHA20_POLY1305 = 28, "CHACHA20_POLY1305";
    }
}

numbers! {
    /// Pseudorandom function (transform type 2).
    PrfId(u16) {
        HMAC_MD5 = 1, "PRF_HMAC_MD5";
        HMAC_SHA1 = 2, "PRF_HMAC_SHA1";
        HMAC_SHA2_256 = 5, "PRF_HMAC_SHA2_256";
        HMAC_SHA2_384 = 6, "PRF_HMAC_SHA2_384";
        HMAC_SHA2_512 = 7, "PRF_HMAC_SHA2_512";
    }
}

numbers! {
    /// Integrity algorithm (transform type 3).
    IntegId(u16) {
        NONE = 0, "NONE";
        HMAC_MD5_96 = 1, "HMAC_MD5_96";
        HMAC_SHA1_96 = 2, "HMAC_SHA1_96";
        HMAC_SHA2_256_128 = 12, "HMAC_SHA2_256_128";
        HMAC_SHA2_384_192 = 13, "HMAC_SHA2_384_192";
        HMAC_SHA2_512_256 = 14, "HMAC_SHA2_512_256";
    }
}

numbers! {
    /// Key exchange method (transform type 4, formerly Diffie-Hellman group).
    KeMethod(u16) {
        NONE = 0, "NONE";
        MODP_768 = 1, "MODP_768";
        MODP_1024 = 2, "MODP_1024";
        MODP_1536 = 5, "MODP_1536";
        MODP_2048 = 14, "MODP_2048";
        MODP_3072 = 15, "MODP_3072";
        MODP_4096 = 16, "MODP_4096";
        ECP_256 = 19, "ECP_256";
        ECP_384 = 20, "ECP_384";
        ECP_521 = 21, "ECP_521";
        MODP_1024_160 = 22, "MODP_1024_160";
        MODP_2048_224 = 23, "MODP_2048_224";
        MODP_2048_256 = 24, "MODP_2048_256";
        CURVE25519 = 31, "CURVE25519";
    }
}

numbers! {
    /// Extended sequence numbers (transform type 5).
    EsnId(u16) {
        NO_ESN = 0, "NO_ESN";
        ESN = 1, "ESN";
    }
}

numbers! {
    /// Identification type, RFC 7296 section 3.5.
    IdType(u8) {
        IPV4_ADDR = 1, "IPV4_ADDR";
        FQDN = 2, "FQDN";
        RFC822_ADDR = 3, "RFC822_ADDR";
        IPV6_ADDR = 5, "IPV6_ADDR";
        DER_ASN1_DN = 9, "DER_ASN1_DN";
        KEY_ID = 11, "KEY_ID";
    }
}

numbers! {
    /// Certificate encoding, RFC 7296 section 3.6 and RFC 7670.
    CertEncoding(u8) {
        X509_SIGNATURE = 4, "X509_SIGNATURE";
        X509_HASH_AND_URL = 12, "X509_HASH_AND_URL";
        RAW_PUBLIC_KEY = 15, "RAW_PUBLIC_KEY";
    }
}

numbers! {
    /// Authentication method of an AUTH payload, RFC 7296 section 3.8 and RFC 7427.
    AuthMethod(u8) {
        RSA = 1, "RSA";
        SHARED_KEY = 2, "SHARED_KEY";
        ECDSA_256 = 9, "ECDSA_256";
        ECDSA_384 = 10, "ECDSA_384";
        ECDSA_521 = 11, "ECDSA_521";
        NULL = 13, "NULL";
        DIGITAL_SIGNATURE = 14, "DIGITAL_SIGNATURE";
    }
}

numbers! {
    /// Hash algorithm of SIGNATURE_HASH_ALGORITHMS, RFC 7427 section 7 and RFC 8420.
    HashId(u16) {
        SHA1 = 1, "SHA1";
        SHA2_256 = 2, "SHA2_256";
        SHA2_384 = 3, "SHA2_384";
        SHA2_512 = 4, "SHA2_512";
        IDENTITY = 5, "IDENTITY";
    }
}

numbers! {
    /// Traffic selector type, RFC 7296 section 3.13.1.
    TsType(u8) {
        IPV4_ADDR_RANGE = 7, "IPV4_ADDR_RANGE";
        IPV6_ADDR_RANGE = 8, "IPV6_ADDR_RANGE";
    }
}

numbers! {
    /// Notify message type, RFC 7296 section 3.10.1 and its extensions.
    /// Types below 16384 report an error.
    NotifyType(u16) {
        UNSUPPORTED_CRITICAL_PAYLOAD = 1, "UNSUPPORTED_CRITICAL_PAYLOAD";
        INVALID_IKE_SPI = 4, "INVALID_IKE_SPI";
        INVALID_MAJOR_VERSION = 5, "INVALID_MAJOR_VERSION";
        INVALID_SYNTAX = 7, "INVALID_SYNTAX";
        INVALID_MESSAGE_ID = 9, "INVALID_MESSAGE_ID";
        INVALID_SPI = 11, "INVALID_SPI";
        NO_PROPOSAL_CHOSEN = 14, "NO_PROPOSAL_CHOSEN";
        INVALID_KE_PAYLOAD = 17, "INVALID_KE_PAYLOAD";
        AUTHENTICATION_FAILED = 24, "AUTHENTICATION_FAILED";
        SINGLE_PAIR_REQUIRED = 34, "SINGLE_PAIR_REQUIRED";
        NO_ADDITIONAL_SAS = 35, "NO_ADDITIONAL_SAS";
        INTERNAL_ADDRESS_FAILURE = 36, "INTERNAL_ADDRESS_FAILURE";
        FAILED_CP_REQUIRED = 37, "FAILED_CP_REQUIRED";
        TS_UNACCEPTABLE = 38, "TS_UNACCEPTABLE";
        INVALID_SELECTORS = 39, "INVALID_SELECTORS";
        UNACCEPTABLE_ADDRESSES = 40, "UNACCEPTABLE_ADDRESSES";
        UNEXPECTED_NAT_DETECTED = 41, "UNEXPECTED_NAT_DETECTED";
        TEMPORARY_FAILURE = 43, "TEMPORARY_FAILURE";
        CHILD_SA_NOT_FOUND = 44, "CHILD_SA_NOT_FOUND";
        /// RFC 9611.
        TS_MAX_QUEUE = 48, "TS_MAX_QUEUE";
        INITIAL_CONTACT = 16384, "INITIAL_CONTACT";
        SET_WINDOW_SIZE = 16385, "SET_WINDOW_SIZE";
        ADDITIONAL_TS_POSSIBLE = 16386, "ADDITIONAL_TS_POSSIBLE";
        IPCOMP_SUPPORTED = 16387, "IPCOMP_SUPPORTED";
        NAT_DETECTION_SOURCE_IP = 16388, "NAT_DETECTION_SOURCE_IP";
        NAT_DETECTION_DESTINATION_IP = 16389, "NAT_DETECTION_DESTINATION_IP";
        COOKIE = 16390, "COOKIE";
        USE_TRANSPORT_MODE = 16391, "USE_TRANSPORT_MODE";
        HTTP_CERT_LOOKUP_SUPPORTED = 16392, "HTTP_CERT_LOOKUP_SUPPORTED";
        REKEY_SA = 16393, "REKEY_SA";
        ESP_TFC_PADDING_NOT_SUPPORTED = 16394, "ESP_TFC_PADDING_NOT_SUPPORTED";
        NON_FIRST_FRAGMENTS_ALSO = 16395, "NON_FIRST_FRAGMENTS_ALSO";
        MOBIKE_SUPPORTED = 16396, "MOBIKE_SUPPORTED";
        ADDITIONAL_IP4_ADDRESS = 16397, "ADDITIONAL_IP4_ADDRESS";
        ADDITIONAL_IP6_ADDRESS = 16398, "ADDITIONAL_IP6_ADDRESS";
        NO_ADDITIONAL_ADDRESSES = 16399, "NO_ADDITIONAL_ADDRESSES";
        UPDATE_SA_ADDRESSES = 16400, "UPDATE_SA_ADDRESSES";
        COOKIE2 = 16401, "COOKIE2";
        NO_NATS_ALLOWED = 16402, "NO_NATS_ALLOWED";
        AUTH_LIFETIME = 16403, "AUTH_LIFETIME";
        REDIRECT_SUPPORTED = 16406, "REDIRECT_SUPPORTED";
        REDIRECT = 16407, "REDIRECT";
        REDIRECTED_FROM = 16408, "REDIRECTED_FROM";
        TICKET_LT_OPAQUE = 16409, "TICKET_LT_OPAQUE";
        TICKET_REQUEST = 16410, "TICKET_REQUEST";
        TICKET_ACK = 16411, "TICKET_ACK";
        TICKET_NACK = 16412, "TICKET_NACK";
        TICKET_OPAQUE = 16413, "TICKET_OPAQUE";
        CHILDLESS_IKEV2_SUPPORTED = 16418, "CHILDLESS_IKEV2_SUPPORTED";
        QCD_TOKEN = 16419, "QCD_TOKEN";
        IKEV2_FRAGMENTATION_SUPPORTED = 16430, "IKEV2_FRAGMENTATION_SUPPORTED";
        SIGNATURE_HASH_ALGORITHMS = 16431, "SIGNATURE_HASH_ALGORITHMS";
        PUZZLE = 16434, "PUZZLE";
        SUPPORTED_AUTH_METHODS = 16443, "SUPPORTED_AUTH_METHODS";
        /// RFC 9611.
        SA_RESOURCE_INFO = 16444, "SA_RESOURCE_INFO";
    }
}

impl NotifyType {
    /// Whether the notify reports an error (RFC 7296 section 3.10.1: 0 to 16383).
    pub fn is_error(self) -> bool {
        self.0 < 16384
    }
}
