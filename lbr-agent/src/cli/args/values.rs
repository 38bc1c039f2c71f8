//! Values that people type, and what to say about those that nearly fit.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

/// An address block.
pub(super) fn block(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    // The crate takes leading zeros for decimal, others for octal.
    let is_plain = text.split_once('/').is_some_and(|(ip, _)| ip.parse::<IpAddr>().is_ok());
    if let (true, Ok(block)) = (is_plain, text.parse()) {
        return Ok(block);
    }
    if let Some(ip) = bare_address(text) {
        let length = if ip.is_ipv4() { 32 } else { 128 };
        return Err(format!("`{text}` is an address, and a block is wanted: write {ip}/{length}"));
    }
    if let Some((first, length)) = text.split_once('/')
        && let Some(ip) = bare_address(first)
    {
        if let Ok(mask) = length.parse::<IpAddr>() {
            return Err(match ipnet::ip_mask_to_prefix(mask) {
                Ok(length) if mask.is_ipv4() == ip.is_ipv4() => {
                    format!("`{text}` has a netmask: write {ip}/{length}")
                }
                _ => format!(
                    "`{text}` has a netmask that is none: write the length of the prefix, as in {ip}/24"
                ),
            });
        }
        let (family, most) = if ip.is_ipv4() { ("IPv4", 32) } else { ("IPv6", 128) };
        return Err(format!(
            "`{text}`: the prefix of an {family} block has 0 to {most} bits, as in {ip}/{most}"
        ));
    }
    let first = text.split(['/', '-', ':']).next().unwrap_or(text);
    if let Some(plain) = without_zeros(text.split('/').next().unwrap_or(text)) {
        return Err(format!("`{text}` has leading zeros, which may mean octal: write {plain}/..."));
    }
    if text.contains('-') && bare_address(first).is_some() {
        return Err(format!("`{text}` is a range: write it as one block or more, such as {first}/24"));
    }
    Err(format!("`{text}` is not an address block such as 10.0.0.0/8 or fd00::/8"))
}

/// An IP address.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let text = text.trim();
    if let Ok(ip) = text.parse() {
        return Ok(ip);
    }
    let wanted = "an IP address is wanted";
    if let Ok(at) = text.parse::<SocketAddr>() {
        return Err(format!("{wanted}, without a port: write {}", at.ip()));
    }
    if let Some(ip) = bare_address(text) {
        return Err(format!("{wanted}, without brackets: write {ip}"));
    }
    if let Some(ip) = text.split_once('/').and_then(|(ip, _)| bare_address(ip)) {
        return Err(format!("{wanted}, and not a block: write {ip}, or another address of the block"));
    }
    if let Some(plain) = without_zeros(text) {
        return Err(format!("{wanted}; leading zeros may mean octal: write {plain}"));
    }
    if text.parse::<std::net::Ipv4Addr>().is_err() && text.contains('%') {
        return Err(format!("{wanted}, without an interface (`%`)"));
    }
    Err(format!("{wanted}, such as 10.0.0.1 or fd00::1; host names are not looked up"))
}

/// Where to listen: an address with or without a port.
pub(super) fn listen(text: &str, port: u16) -> Result<SocketAddr, String> {
    if let Ok(at) = text.parse::<SocketAddr>() {
        return match at.port() {
            0 => Err("a port above 0 is wanted; an empty text turns the server off".to_owned()),
            _ => Ok(at),
        };
    }
    if let Some(ip) = bare_address(text) {
        return Ok(SocketAddr::new(ip, port));
    }
    let number = text.strip_prefix(':').unwrap_or(text);
    if let Ok(number) = number.parse::<u16>() {
        return Err(format!(
            "an IP address is wanted before the port: write 0.0.0.0:{number} for all addresses, or 127.0.0.1:{number}"
        ));
    }
    if let Some((name, port)) = text.rsplit_once(':')
        && name == "localhost"
    {
        return Err(format!("names are not looked up: write 127.0.0.1:{port} or [::1]:{port}"));
    }
    Err(format!("an IP address with or without a port is wanted, as 0.0.0.0:{port} or [::]:{port}"))
}

/// Go's `time.ParseDuration`, without signs: a sequence of numbers with units, or `0`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wanted = "a time such as 30s, 250ms or 1h30m is wanted";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if let Ok(number) = text.parse::<u64>() {
        return Err(format!("{wanted}: {number} has no unit; write {number}s for seconds"));
    }
    if text.starts_with('-') {
        return Err(format!("{wanted}, not a negative one"));
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => return Err(format!("{wanted}: days are no unit; write {}", in_hours(number))),
            _ => return Err(wanted.to_owned()),
        };
        seconds += number.parse::<f64>().map_err(|_| wanted.to_owned())? * unit;
        rest = after;
    }
    if text.is_empty() {
        return Err(wanted.to_owned());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wanted.to_owned())
}

fn in_hours(days: &str) -> String {
    days.parse::<u32>()
        .ok()
        .and_then(|days| days.checked_mul(24))
        .map_or("hours".to_owned(), |h| format!("{h}h"))
}

/// A whole number without a sign. The error says how to write what was probably meant.
pub(super) fn count(text: &str) -> Result<u64, String> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_err(|_| format!("{text} is too large"));
    }
    match meant(text) {
        Some(number) => Err(format!("`{text}` is not written as digits only: write {number}")),
        None => Err(format!("`{text}` is not a whole number")),
    }
}

/// The number behind `1_000`, `1,000`, `0x400`, `512k`, `4Mi` or `1e6`.
fn meant(text: &str) -> Option<u64> {
    let plain = text.replace(['_', ',', '\''], "").to_ascii_lowercase();
    if let Some(digits) = plain.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok();
    }
    let digits = plain.find(|c: char| !c.is_ascii_digit()).unwrap_or(plain.len());
    let (number, unit) = plain.split_at(digits);
    let factor = match unit {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "ki" | "kb" | "kib" => 1 << 10,
        "mi" | "mb" | "mib" => 1 << 20,
        "gi" | "gb" | "gib" => 1 << 30,
        _ => {
            let zeros = unit.strip_prefix('e')?.parse().ok()?;
            10u64.checked_pow(zeros)?
        }
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// An address, also in brackets as in URLs.
fn bare_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}

/// An IPv4 address without its leading zeros, if it has any.
fn without_zeros(text: &str) -> Option<String> {
    let parts: Vec<u8> = text.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    (parts.len() == 4).then(|| parts.iter().map(u8::to_string).collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asserts that each text is refused, with these words.
    fn refused<T: std::fmt::Debug>(read: impl Fn(&str) -> Result<T, String>, cases: &[(&str, &str)]) {
        for (text, words) in cases {
            let error = read(text).unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }

    #[test]
    fn blocks() {
        for text in ["10.0.0.0/8", " fd00::/8 ", "10.0.0.1/32", "0.0.0.0/0"] {
            assert!(block(text).is_ok(), "{text}");
        }
        refused(
            block,
            &[
                ("10.0.0.1", "write 10.0.0.1/32"),
                ("fd00::1", "write fd00::1/128"),
                ("[fd00::1]", "write fd00::1/128"),
                ("10.0.0.0/255.255.255.0", "write 10.0.0.0/24"),
                ("10.0.0.0/255.0.255.0", "a netmask that is none"),
                ("10.0.0.0/33", "IPv4 block has 0 to 32 bits"),
                ("fd00::/129", "IPv6 block has 0 to 128 bits"),
                ("10.0.0.0/x", "0 to 32 bits"),
                ("10.0.0.1-10.0.0.9", "is a range"),
                ("010.0.0.0/8", "leading zeros"),
                ("example.org", "not an address block such as 10.0.0.0/8"),
                ("", "not an address block"),
            ],
        );
    }

    #[test]
    fn addresses() {
        assert_eq!(address(" 10.0.0.1"), Ok("10.0.0.1".parse().unwrap()));
        refused(
            address,
            &[
                ("10.0.0.1:80", "without a port: write 10.0.0.1"),
                ("[::1]:80", "without a port: write ::1"),
                ("[::1]", "write ::1"),
                ("10.0.0.0/8", "not a block: write 10.0.0.0"),
                ("010.0.0.1", "write 10.0.0.1"),
                ("fe80::1%eth0", "without an interface"),
                ("localhost", "host names are not looked up"),
                ("", "such as 10.0.0.1"),
            ],
        );
    }

    #[test]
    fn places_to_listen_at() {
        let at = |text: &str| Ok(text.parse().unwrap());
        assert_eq!(listen("0.0.0.0:10256", 1), at("0.0.0.0:10256"));
        assert_eq!(listen("127.0.0.1", 10249), at("127.0.0.1:10249"));
        assert_eq!(listen("[::]:1", 2), at("[::]:1"));
        assert_eq!(listen("::", 2), at("[::]:2"));
        assert_eq!(listen("[::1]", 2), at("[::1]:2"));
        refused(
            |text| listen(text, 1),
            &[
                (":10249", "write 0.0.0.0:10249 for all addresses"),
                ("10249", "write 0.0.0.0:10249"),
                ("localhost:1", "write 127.0.0.1:1 or [::1]:1"),
                ("1.2.3.4:0", "above 0"),
                ("1.2.3.4:99999", "0.0.0.0:1 or [::]:1"),
                ("[1.2.3.4]:", "0.0.0.0:1"),
            ],
        );
    }

    #[test]
    fn durations_are_gos() {
        for (text, millis) in
            [("0", 0), ("0s", 0), ("30s", 30_000), ("1h30m", 5_400_000), ("250ms", 250), ("1.5s", 1500)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        refused(
            duration,
            &[
                ("30", "write 30s for seconds"),
                ("2d", "write 48h"),
                ("-1s", "negative"),
                ("", "30s, 250ms or 1h30m"),
                ("s", "30s"),
                ("1s 2s", "30s"),
                ("1e400s", "30s"),
                ("1..5s", "30s"),
                ("99999999999999999999999h", "30s"),
            ],
        );
    }

    #[test]
    fn counts() {
        assert_eq!(count("65536"), Ok(65_536));
        refused(
            count,
            &[
                ("1_000", "write 1000"),
                ("1,000", "write 1000"),
                ("0x400", "write 1024"),
                ("512k", "write 512000"),
                ("4Mi", "write 4194304"),
                ("1e6", "write 1000000"),
                ("-1", "not a whole number"),
                ("many", "not a whole number"),
                ("", "not a whole number"),
                ("99999999999999999999", "too large"),
            ],
        );
    }
}
