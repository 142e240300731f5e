//! Sizes, shares and durations as people read them.

use std::time::Duration;

/// "512 MiB", "1.5 GiB": binary units, rounded down to a tenth.
pub(crate) fn show_bytes(bytes: u64) -> String {
    const NAMES: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10 / 1024;
    while tenths >= 10_240 && unit + 1 < NAMES.len() {
        tenths /= 1024;
        unit += 1;
    }
    match tenths % 10 {
        0 => format!("{} {}", tenths / 10, NAMES[unit]),
        rest => format!("{}.{rest} {}", tenths / 10, NAMES[unit]),
    }
}

/// "1h 30m", to the millisecond.
pub(crate) fn show_duration_ms(millis: u64) -> String {
    humantime::format_duration(Duration::from_millis(millis)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_binary() {
        let shown = [0, 1023, 1024, 1536, 8 << 20, (8 << 20) - 1, u64::MAX].map(show_bytes);
        let expected = [
            "0 B", "1023 B", "1 KiB", "1.5 KiB", "8 MiB", "7.9 MiB", "15.9 EiB",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(show_duration_ms(90_500), "1m 30s 500ms");
    }
}
