//! Sizes, shares and durations as people read them, the same in the gateway's messages and on the
//! command line.

use std::time::Duration;

/// "512 MiB", "1.5 GiB": binary units, rounded down to a tenth.
pub fn show_size(bytes: u64) -> String {
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

/// Thousandths of a CPU → "0.5", "2".
pub fn show_cpus(millis: u64) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Milliseconds → "1h 30m", "99days", exactly. Months and years have no length that people agree on.
pub fn show_duration_ms(millis: u64) -> String {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let rest = Duration::from_millis(millis % DAY_MS);
    let rest = humantime::format_duration(rest).to_string();
    match (millis / DAY_MS, millis % DAY_MS) {
        (0, _) => rest,
        (1, 0) => "1day".to_owned(),
        (1, _) => format!("1day {rest}"),
        (days, 0) => format!("{days}days"),
        (days, _) => format!("{days}days {rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_binary() {
        let shown = [0, 1023, 1024, 1536, 8 << 20, (8 << 20) - 1, u64::MAX].map(show_size);
        let expected = [
            "0 B", "1023 B", "1 KiB", "1.5 KiB", "8 MiB", "7.9 MiB", "15.9 EiB",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn shares_are_written_without_needless_digits() {
        assert_eq!([500, 2000, 20_000].map(show_cpus), ["0.5", "2", "20"]);
    }

    #[test]
    fn durations_have_units() {
        let hour = 3_600_000;
        let shown = [0, 90_500, 24 * hour, 25 * hour, 99 * 24 * hour].map(show_duration_ms);
        let expected = ["0s", "1m 30s 500ms", "1day", "1day 1h", "99days"];
        assert_eq!(shown, expected);
        assert_eq!(show_duration_ms(49 * hour), "2days 1h");
    }
}
