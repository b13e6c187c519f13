//! Encodings, hashes, names and networks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_dockerfile::csv;

use super::{Args, Function, Outcome};
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    ("base64decode", |args| {
        let bytes = STANDARD
            .decode(args.text(0)?)
            .map_err(|_| "failed to decode base64 data".to_owned())?;
        let text = String::from_utf8(bytes);
        text.map(Value::String)
            .map_err(|_| "the result of decoding the provided string is not valid UTF-8".to_owned())
    }),
    ("base64encode", |args| {
        Ok(Value::String(STANDARD.encode(args.text(0)?)))
    }),
    ("cidrhost", |args| {
        let (network, number) = (Network::of(args)?, args.integer(1)?);
        let room = network.size();
        let offset = if number < 0 {
            room.wrapping_sub(u128::from(number.unsigned_abs()))
        } else {
            number.unsigned_abs().into()
        };
        if offset >= room && room != 0 {
            return Err(format!("prefix does not accommodate a host numbered {number}"));
        }
        Ok(Value::String(network.address(network.bits | offset)))
    }),
    ("cidrnetmask", |args| {
        let network = Network::of(args)?;
        Ok(Value::String(network.address(!(network.size().wrapping_sub(1)))))
    }),
    ("cidrsubnet", |args| {
        let (network, more, number) = (Network::of(args)?, args.integer(1)?, args.integer(2)?);
        network
            .subnet(more, number.unsigned_abs().into())
            .map(|found| Value::String(found.to_string()))
    }),
    ("cidrsubnets", |args| {
        let network = Network::of(args)?;
        let mut next = network.bits;
        let mut found = Vec::new();
        for at in 1..args.values.len() {
            let mut one = network.subnet(args.integer(at)?, 0)?;
            let size = one.size();
            one.bits = next.div_ceil(size).saturating_mul(size);
            if one.bits.saturating_sub(network.bits) >= network.size() {
                return Err("not enough remaining address space for a subnet".to_owned());
            }
            next = one.bits.saturating_add(size);
            found.push(one.to_string());
        }
        Ok(Value::strings(found))
    }),
    ("csvdecode", csvdecode),
    ("homedir", |args| Ok(Value::string(args.names.clock_and_home().1))),
    ("jsondecode", |args| {
        let read = serde_json::from_str(&args.text(0)?).map_err(|error| error.to_string())?;
        Ok(Value::from_json(&read))
    }),
    ("jsonencode", |args| {
        let json = args.any(0)?.to_json().to_string();
        // As Go's encoder does.
        let json = json
            .replace('&', "\\u0026")
            .replace('<', "\\u003c")
            .replace('>', "\\u003e");
        Ok(Value::String(json))
    }),
    ("md5", |args| {
        Ok(Value::String(hex(&md5(args.text(0)?.as_bytes()))))
    }),
    ("sha1", |args| hashed(args, &digest::SHA1_FOR_LEGACY_USE_ONLY)),
    ("sha256", |args| hashed(args, &digest::SHA256)),
    ("sha512", |args| hashed(args, &digest::SHA512)),
    ("urlencode", |args| {
        let mut encoded = String::new();
        for byte in args.text(0)?.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    encoded.push(byte.into());
                }
                b' ' => encoded.push('+'),
                _ => encoded.push_str(&format!("%{byte:02X}")),
            }
        }
        Ok(Value::String(encoded))
    }),
    ("uuidv4", |_| {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "there is no randomness".to_owned())?;
        Ok(Value::String(uuid(bytes, 4)))
    }),
    ("uuidv5", uuidv5),
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hashed(args: &Args<'_>, with: &'static digest::Algorithm) -> Outcome {
    Ok(Value::String(hex(
        digest::digest(with, args.text(0)?.as_bytes()).as_ref()
    )))
}

fn uuid(mut bytes: [u8; 16], version: u8) -> String {
    bytes[6] = bytes[6] & 0x0f | version << 4;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex(&bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..]
    )
}

fn uuidv5(args: &Args<'_>) -> Outcome {
    let (space, name) = (args.text(0)?, args.text(1)?);
    let space = match space.as_str() {
        "dns" | "url" | "oid" | "x500" => {
            let number = ["dns", "url", "oid", "", "x500"]
                .iter()
                .position(|known| *known == space);
            format!("6ba7b81{}9dad11d180b400c04fd430c8", number.unwrap_or_default())
        }
        given => given.replace('-', ""),
    };
    let pairs = space.as_bytes().chunks(2).map(|pair| {
        let text = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(text, 16).ok()
    });
    let bytes: Option<Vec<u8>> = pairs.collect();
    let Some(mut bytes) = bytes.filter(|bytes| bytes.len() == 16) else {
        return Err(format!("uuidv5() doesn't support namespace {space}"));
    };
    bytes.extend_from_slice(name.as_bytes());
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &bytes);
    let mut first = [0; 16];
    first.copy_from_slice(&hash.as_ref()[..16]);
    Ok(Value::String(uuid(first, 5)))
}

/// Records of values, the first naming them (go-cty, `function/stdlib/csv.go`, with Go's `encoding/csv`).
fn csvdecode(args: &Args<'_>) -> Outcome {
    let text = args.text(0)?.replace("\r\n", "\n");
    let mut rows = records(&text).map(csv::fields);
    let names = rows
        .next()
        .transpose()
        .map_err(|error| error.to_string())?
        .ok_or("missing header line")?;
    let mut values = Vec::new();
    for row in rows {
        let row = row.map_err(|error| error.to_string())?;
        if row.len() != names.len() {
            return Err("CSV parse error: wrong number of fields".to_owned());
        }
        let fields: BTreeMap<String, Value> = names
            .iter()
            .cloned()
            .zip(row.into_iter().map(Value::String))
            .collect();
        values.push(Value::Object(fields));
    }
    let of = values.first().map_or(crate::value::Type::Any, Value::type_of);
    Ok(Value::List(of, values))
}

/// The records of a text: lines, but for those in quotes; empty ones are none.
fn records(text: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let ends = move |c: char| {
        is_quoted ^= c == '"';
        c == '\n' && !is_quoted
    };
    text.split(ends).filter(|record| !record.is_empty())
}

/// Addresses with a common prefix.
#[derive(Debug, Clone, Copy)]
struct Network {
    bits: u128,
    prefix: u32,
    is_v4: bool,
}

impl Network {
    fn of(args: &Args<'_>) -> Result<Self, String> {
        let text = args.text(0)?;
        let invalid = || format!("invalid CIDR expression: invalid CIDR address: {text}");
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let (bits, width) = match address.parse().map_err(|_| invalid())? {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let prefix = prefix
            .parse()
            .ok()
            .filter(|prefix| *prefix <= width)
            .ok_or_else(invalid)?;
        let mut network = Self {
            bits,
            prefix,
            is_v4: width == 32,
        };
        network.bits &= !network.size().wrapping_sub(1);
        Ok(network)
    }

    const fn width(self) -> u32 {
        if self.is_v4 { 32 } else { 128 }
    }

    /// How many addresses there are; 0 where all of IPv6 is meant.
    const fn size(self) -> u128 {
        match 1_u128.checked_shl(self.width() - self.prefix) {
            Some(size) => size,
            None => 0,
        }
    }

    fn subnet(self, more: i64, number: u128) -> Result<Self, String> {
        let prefix = u32::try_from(more)
            .ok()
            .map(|more| self.prefix.saturating_add(more));
        let Some(prefix) = prefix.filter(|prefix| *prefix <= self.width()) else {
            return Err(format!(
                "insufficient address space to extend prefix of {} by {more}",
                self.prefix
            ));
        };
        let mut found = Self { prefix, ..self };
        let offset = found
            .size()
            .checked_mul(number)
            .filter(|offset| *offset < self.size() || *offset == 0);
        let Some(offset) = offset else {
            return Err(format!(
                "prefix extension of {more} does not accommodate a subnet numbered {number}"
            ));
        };
        found.bits |= offset;
        Ok(found)
    }

    fn address(self, bits: u128) -> String {
        if self.is_v4 {
            #[expect(clippy::cast_possible_truncation, reason = "an IPv4 address has 32 bits")]
            return std::net::Ipv4Addr::from_bits(bits as u32).to_string();
        }
        std::net::Ipv6Addr::from_bits(bits).to_string()
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.address(self.bits), self.prefix)
    }
}

/// MD5 (RFC 1321), for `md5` alone: nothing is protected by it.
fn md5(text: &[u8]) -> [u8; 16] {
    const SHIFTS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
    let mut message = text.to_vec();
    message.push(0x80);
    while message.len() % 64 != 56 {
        message.push(0);
    }
    message.extend_from_slice(&(text.len() as u64).wrapping_mul(8).to_le_bytes());
    let mut state: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    for block in message.chunks_exact(64) {
        let word = |at: usize| {
            let bytes = &block[4 * at..4 * at + 4];
            u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        };
        let [mut a, mut b, mut c, mut d] = state;
        for step in 0..64 {
            let (mixed, at) = match step / 16 {
                0 => (b & c | !b & d, step),
                1 => (d & b | !d & c, (5 * step + 1) % 16),
                2 => (b ^ c ^ d, (3 * step + 5) % 16),
                _ => (c ^ (b | !d), 7 * step % 16),
            };
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "the constant is defined so"
            )]
            let constant = (((step + 1) as f64).sin().abs() * 4_294_967_296.0) as u32;
            let sum = a
                .wrapping_add(mixed)
                .wrapping_add(constant)
                .wrapping_add(word(at));
            let turned = sum.rotate_left(SHIFTS[step / 16][step % 4]);
            (a, d, c, b) = (d, c, b, b.wrapping_add(turned));
        }
        for (kept, new) in state.iter_mut().zip([a, b, c, d]) {
            *kept = kept.wrapping_add(new);
        }
    }
    let mut hash = [0; 16];
    for (bytes, word) in hash.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::{hex, md5};

    #[test]
    fn md5_is_that_of_rfc_1321() {
        assert_eq!(hex(&md5(b"")), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(hex(&md5(b"message digest")), "f96b697d7cb7938d525a2f31aaf161d0");
        let long = "1234567890".repeat(8);
        assert_eq!(hex(&md5(long.as_bytes())), "57edf4a22be3c955ac49da2e2107b67a");
    }
}
