//! Single values: what kinds there are, and how each is written.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An absolute path.
    Path,
    Text,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Permission bits, written in octal.
    Mode,
    /// A size, at least this.
    Bytes {
        min: u64,
    },
    /// A number of CPUs, kept in thousandths.
    Cpus,
    /// A count within these bounds.
    Count {
        min: u64,
        max: u64,
    },
    /// A length of time, at least this many milliseconds.
    Duration {
        min_ms: u64,
    },
}

/// A value of some kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scalar {
    Path(PathBuf),
    Text(String),
    /// A mode, bytes, thousandths of CPUs or a count.
    Number(u64),
    Duration(Duration),
    /// "none": no limit.
    Unlimited,
}

/// Longer than anything here may last; keeps sums of times in range.
const DURATION_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

const CPU_MILLIS_MIN: u64 = 10;
const CPU_MILLIS_MAX: u64 = 4_096_000;

impl Kind {
    /// How a value looks, for people.
    fn example(self) -> String {
        match self {
            Self::Path => "an absolute path like \"/var/lib/cofferdam\"".to_owned(),
            Self::Text => "a string".to_owned(),
            Self::Choice(choices) => format!("one of \"{}\"", choices.join("\", \"")),
            Self::Mode => "permission bits in octal like \"0660\"".to_owned(),
            Self::Bytes { .. } => "a size like \"512MiB\"".to_owned(),
            Self::Cpus => "a number of CPUs like 1.5".to_owned(),
            Self::Count { .. } => "a whole number".to_owned(),
            Self::Duration { .. } => "a duration like \"90s\" or \"24h\"".to_owned(),
        }
    }

    /// Reads what stands in a file.
    pub(super) fn parse_toml(self, value: &DeValue<'_>, or_none: bool) -> Result<Scalar, String> {
        let wrong = || {
            let none = if or_none { ", or \"none\"" } else { "" };
            let kind = value.type_str();
            let article = if kind.starts_with(['a', 'i']) {
                "an"
            } else {
                "a"
            };
            format!("must be {}{none}, not {article} {kind}", self.example())
        };
        match (self, value) {
            (_, DeValue::String(text)) => self.parse_text(text, or_none),
            (Self::Bytes { .. } | Self::Count { .. }, DeValue::Integer(number)) => {
                let number = u64::from_str_radix(number.as_str(), number.radix());
                let number =
                    number.map_err(|_| "must not be negative or beyond 2^64".to_owned())?;
                self.check(Scalar::Number(number))
            }
            (Self::Cpus, DeValue::Integer(number)) => self.parse_text(number.as_str(), false),
            (Self::Cpus, DeValue::Float(number)) => self.parse_text(number.as_str(), false),
            (Self::Duration { .. }, DeValue::Integer(number)) => Err(format!(
                "needs a unit: \"{number}s\", \"{number}m\" or \"{number}h\""
            )),
            (Self::Mode, DeValue::Integer(number)) if number.radix() == 8 => {
                self.parse_text(number.as_str(), false)
            }
            _ => Err(wrong()),
        }
    }

    /// Reads what stands in a flag, a variable or a string of a file.
    pub(super) fn parse_text(self, text: &str, or_none: bool) -> Result<Scalar, String> {
        if or_none && text == "none" {
            return Ok(Scalar::Unlimited);
        }
        let wrong = || {
            let none = if or_none { ", or \"none\"" } else { "" };
            format!("must be {}{none}, not {text:?}", self.example())
        };
        let scalar = match self {
            Self::Path => Scalar::Path(text.into()),
            Self::Text => Scalar::Text(text.to_owned()),
            Self::Choice(choices) if choices.contains(&text) => Scalar::Text(text.to_owned()),
            Self::Choice(_) => return Err(wrong()),
            Self::Mode => {
                let digits = text.strip_prefix("0o").unwrap_or(text);
                let mode = u64::from_str_radix(digits, 8).map_err(|_| wrong())?;
                Scalar::Number(mode)
            }
            Self::Bytes { .. } => Scalar::Number(parse_bytes(text).ok_or_else(wrong)?),
            Self::Cpus => Scalar::Number(parse_thousandths(text).ok_or_else(wrong)?),
            Self::Count { .. } => Scalar::Number(text.parse().map_err(|_| wrong())?),
            Self::Duration { .. } => {
                Scalar::Duration(humantime::parse_duration(text).map_err(|_| wrong())?)
            }
        };
        self.check(scalar)
    }

    /// The bounds of the kind itself.
    fn check(self, scalar: Scalar) -> Result<Scalar, String> {
        match (self, &scalar) {
            (Self::Path, Scalar::Path(path)) if !path.is_absolute() => Err(format!(
                "must be an absolute path, not {:?}",
                path.display().to_string()
            )),
            (Self::Path, Scalar::Path(path))
                if path.as_os_str().as_encoded_bytes().contains(&0) =>
            {
                Err("must not hold a zero byte".to_owned())
            }
            (Self::Text, Scalar::Text(text)) if text.is_empty() => {
                Err("must not be empty".to_owned())
            }
            (Self::Mode, Scalar::Number(mode)) if *mode > 0o777 || mode & 0o600 != 0o600 => Err(
                format!("must let the owner read and write and be at most 0777, not {mode:04o}"),
            ),
            (Self::Bytes { min }, Scalar::Number(bytes)) if *bytes < min => {
                Err(format!("must be at least {}", show_bytes(min)))
            }
            (Self::Cpus, Scalar::Number(millis))
                if !(CPU_MILLIS_MIN..=CPU_MILLIS_MAX).contains(millis) =>
            {
                Err("must be between 0.01 and 4096".to_owned())
            }
            (Self::Count { min, max }, Scalar::Number(count)) if !(min..=max).contains(count) => {
                Err(format!("must be between {min} and {max}"))
            }
            (Self::Duration { min_ms }, Scalar::Duration(duration))
                if *duration < Duration::from_millis(min_ms) || *duration > DURATION_MAX =>
            {
                let min = humantime::format_duration(Duration::from_millis(min_ms));
                Err(format!("must be between {min} and 10 years"))
            }
            _ => Ok(scalar),
        }
    }

    /// The value as it is written in a file.
    pub(super) fn show(self, scalar: &Scalar) -> String {
        match (self, scalar) {
            (_, Scalar::Unlimited) => quote("none"),
            (_, Scalar::Path(path)) => quote(&path.display().to_string()),
            (_, Scalar::Text(text)) => quote(text),
            (_, Scalar::Duration(duration)) => {
                quote(&humantime::format_duration(*duration).to_string())
            }
            (Self::Mode, Scalar::Number(mode)) => quote(&format!("{mode:04o}")),
            (Self::Bytes { .. }, Scalar::Number(bytes)) => quote(&show_bytes(*bytes)),
            (Self::Cpus, Scalar::Number(millis)) => match millis % 1000 {
                0 => (millis / 1000).to_string(),
                part => {
                    let part = format!("{part:03}");
                    format!("{}.{}", millis / 1000, part.trim_end_matches('0'))
                }
            },
            (_, Scalar::Number(number)) => number.to_string(),
        }
    }
}

fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

const UNITS: [(&str, u32); 5] = [("K", 10), ("M", 20), ("G", 30), ("T", 40), ("P", 50)];

/// "512MiB", "512M", "1.5GiB", "1048576". Units are binary.
fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_uppercase();
    let prefix = unit.strip_suffix('B').unwrap_or(&unit);
    let prefix = prefix.strip_suffix('I').unwrap_or(prefix);
    let shift = match prefix {
        "" if matches!(unit.as_str(), "" | "B") => 0,
        _ => UNITS.iter().find(|(name, _)| *name == prefix)?.1,
    };
    let thousandths = parse_thousandths(digits.trim_end())?;
    u64::try_from((u128::from(thousandths) << shift) / 1000).ok()
}

/// A decimal number with at most three digits behind the point, exactly.
fn parse_thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return None;
    }
    let part: u64 = format!("{part:0<3}").parse().ok()?;
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1000)?
        .checked_add(part)
}

/// In the largest unit that holds it exactly.
fn show_bytes(bytes: u64) -> String {
    let fits = |shift: u32| bytes > 0 && bytes.trailing_zeros() >= shift;
    match UNITS.iter().rev().find(|(_, shift)| fits(*shift)) {
        Some((unit, shift)) => format!("{}{unit}iB", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: Kind = Kind::Bytes { min: 1 };

    #[test]
    fn sizes_are_binary_and_exact() {
        let cases = [
            ("1", 1),
            ("1B", 1),
            ("1K", 1 << 10),
            ("512MiB", 512 << 20),
            ("512 MiB", 512 << 20),
            ("1.5g", 3 << 29),
            ("0.001k", 1),
        ];
        for (text, bytes) in cases {
            assert_eq!(
                BYTES.parse_text(text, false),
                Ok(Scalar::Number(bytes)),
                "{text}"
            );
        }
        for text in [
            "",
            "MiB",
            "1.2345M",
            "1iB",
            "-1",
            "1e3",
            "12 34",
            "99999999999P",
        ] {
            assert!(BYTES.parse_text(text, false).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back_as_the_same() {
        let millis = Kind::Duration { min_ms: 0 };
        let cases = [
            (BYTES, Scalar::Number(512 << 20)),
            (BYTES, Scalar::Number(1000)),
            (Kind::Mode, Scalar::Number(0o660)),
            (Kind::Cpus, Scalar::Number(1_500)),
            (Kind::Cpus, Scalar::Number(2_000)),
            (Kind::Cpus, Scalar::Number(10)),
            (Kind::Count { min: 0, max: 9 }, Scalar::Number(7)),
            (millis, Scalar::Duration(Duration::from_millis(90_061_001))),
            (Kind::Path, Scalar::Path("/a \"b\"\\c".into())),
            (Kind::Text, Scalar::Text("x\ny".to_owned())),
            (BYTES, Scalar::Unlimited),
        ];
        for (kind, scalar) in cases {
            let shown = kind.show(&scalar);
            let value = DeValue::parse(&shown).unwrap();
            assert_eq!(
                kind.parse_toml(value.get_ref(), true),
                Ok(scalar),
                "{shown}"
            );
        }
    }

    #[test]
    fn a_duration_without_a_unit_says_which_there_are() {
        let value = DeValue::parse("300").unwrap();
        let error = Kind::Duration { min_ms: 0 }
            .parse_toml(value.get_ref(), false)
            .unwrap_err();
        assert!(error.contains("\"300s\""), "{error}");
    }
}
