//! Sizes, shares and durations as people type and read them. Sizes are binary: 1k = 1024.

use std::time::Duration;

pub(crate) use cofferdam_gateway::units::{show_cpus, show_duration_ms, show_size};

const SIZE_UNITS: [(char, u32); 5] = [('k', 10), ('m', 20), ('g', 30), ('t', 40), ('p', 50)];

/// "512M", "1.5G", "64k", "1048576", "2GiB" → bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size: write 512M, 1.5G or a number of bytes");
    let lower = text.trim().to_ascii_lowercase();
    let digits_end = lower
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits_end);
    let unit = unit.trim_start();
    let shift = match unit.chars().next() {
        None => 0,
        Some('b') if unit == "b" => 0,
        Some(letter) => {
            let (_, shift) = SIZE_UNITS
                .iter()
                .find(|(unit, _)| *unit == letter)
                .ok_or_else(wrong)?;
            if !matches!(&unit[1..], "" | "b" | "i" | "ib") {
                return Err(wrong());
            }
            *shift
        }
    };
    let thousandths = parse_thousandths(number).ok_or_else(wrong)?;
    let bytes = (u128::from(thousandths) << shift) / 1000;
    u64::try_from(bytes).map_err(|_| format!("{text} is more than can be counted"))
}

/// As [`parse_size`], for a limit.
pub(crate) fn parse_size_limit(text: &str) -> Result<u64, String> {
    limit(text, parse_size)
}

/// As [`parse_cpus`], for a limit.
pub(crate) fn parse_cpus_limit(text: &str) -> Result<u64, String> {
    limit(text, parse_cpus)
}

/// "100" → 100, for a limit.
pub(crate) fn parse_count_limit(text: &str) -> Result<u64, String> {
    limit(text, |text| {
        text.trim()
            .parse()
            .map_err(|_| format!("{text:?} is not a whole number"))
    })
}

/// "none" is no limit, which the contract writes as 0. A plain 0 is refused: it may be meant as
/// "nothing at all" too.
fn limit(text: &str, parse: fn(&str) -> Result<u64, String>) -> Result<u64, String> {
    match text.trim() {
        "none" => Ok(0),
        _ => match parse(text)? {
            0 => {
                Err("0 is no limit that anything could run in; write \"none\" for no limit".into())
            }
            value => Ok(value),
        },
    }
}

/// "0.5" → 500, "2" → 2000.
pub(crate) fn parse_cpus(text: &str) -> Result<u64, String> {
    match parse_thousandths(text.trim()) {
        Some(millis) if millis > 0 => Ok(millis),
        _ => Err(format!(
            "{text:?} is not a number of CPUs: write 2 or 0.5 (down to 0.01)"
        )),
    }
}

/// "10s", "5m", "1h30m", "500ms" → milliseconds.
pub(crate) fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let duration: Duration = humantime::parse_duration(text.trim())
        .map_err(|_| format!("{text:?} is not a duration: write 500ms, 10s, 5m or 1h30m"))?;
    u64::try_from(duration.as_millis()).map_err(|_| format!("{text} is too long"))
}

/// The same, of something that needs time: 0 would be taken for "not given".
pub(crate) fn parse_time_limit_ms(text: &str) -> Result<u64, String> {
    match parse_duration_ms(text)? {
        0 => Err("0 is no time that anything could run in; leave it out for the default".into()),
        value => Ok(value),
    }
}

/// A decimal number with at most three digits after the point, exactly.
fn parse_thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 || (whole.is_empty() && part.is_empty()) {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let part: u64 = format!("{part:0<3}").parse().ok()?;
    whole.checked_mul(1000)?.checked_add(part)
}

/// Microseconds → "3.4ms", "12.0s", "5m 3s", as exact as people need it.
pub(crate) fn show_span_us(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros}µs"),
        1_000..1_000_000 => format!("{}.{}ms", micros / 1_000, micros % 1_000 / 100),
        1_000_000..60_000_000 => {
            format!("{}.{}s", micros / 1_000_000, micros % 1_000_000 / 100_000)
        }
        _ => show_age_s(micros / 1_000_000),
    }
}

/// Seconds → "12s", "5m", "3h", "2d": the largest unit only.
pub(crate) fn show_age_s(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Unix milliseconds → RFC 3339 in UTC, to the millisecond.
pub(crate) fn show_time(unix_ms: u64) -> String {
    let time = std::time::UNIX_EPOCH + Duration::from_millis(unix_ms);
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_and_exact() {
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("1.5g"), Ok(3 << 29));
        assert_eq!(parse_size("64KiB"), Ok(64 << 10));
        assert_eq!(parse_size("1048576"), Ok(1 << 20));
        assert_eq!(parse_size("10b"), Ok(10));
        for wrong in ["", "M", "12x", "1..5G", "-1", "1mm", "99999999p"] {
            assert!(parse_size(wrong).is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn cpus_are_thousandths() {
        assert_eq!(parse_cpus("0.5"), Ok(500));
        assert_eq!(parse_cpus("2"), Ok(2000));
        assert_eq!(parse_cpus(".25"), Ok(250));
        for wrong in ["0", "0.0001", "", ".", "two", "-1"] {
            assert!(parse_cpus(wrong).is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn no_limit_is_asked_for_by_name() {
        assert_eq!(parse_size_limit("none"), Ok(0));
        assert_eq!(parse_size_limit("1k"), Ok(1024));
        assert_eq!(parse_count_limit("7"), Ok(7));
        assert!(parse_cpus_limit("0").is_err());
        for zero in [parse_size_limit("0"), parse_count_limit("0")] {
            assert!(zero.unwrap_err().contains("\"none\""));
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration_ms("10s"), Ok(10_000));
        assert_eq!(parse_duration_ms("1h30m"), Ok(5_400_000));
        assert!(parse_duration_ms("10").is_err());
        assert_eq!(parse_time_limit_ms("1ms"), Ok(1));
        assert!(parse_time_limit_ms("0s").is_err());
    }

    #[test]
    fn spans_show_what_matters() {
        assert_eq!(show_span_us(812), "812µs");
        assert_eq!(show_span_us(3_460), "3.4ms");
        assert_eq!(show_span_us(12_000_000), "12.0s");
        assert_eq!(show_span_us(200_000_000), "3m");
        assert_eq!(show_time(0), "1970-01-01T00:00:00.000Z");
    }
}
