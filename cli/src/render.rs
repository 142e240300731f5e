//! Tables and blocks of "key  value" for people.

use crate::ui::{Tone, Ui, one_line};

const GAP: &str = "  ";

/// A cell of a table: a text and what it means.
#[derive(Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(crate) fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        let text = one_line(text.as_ref());
        Self {
            text: if text.is_empty() {
                "-".to_owned()
            } else {
                text
            },
            tone,
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// A table with aligned columns. Empty cells show as "-", so that `awk` counts columns right.
pub(crate) fn table<const N: usize>(ui: &Ui, titles: [&str; N], rows: &[[Cell; N]]) -> String {
    let mut widths = titles.map(width);
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            widths[column] = widths[column].max(width(&cell.text));
        }
    }
    let mut out = String::new();
    let heads = titles.map(|title| Cell::toned(title, Tone::Faint));
    for row in std::iter::once(&heads).chain(rows) {
        for (column, cell) in row.iter().enumerate() {
            out.push_str(&ui.paint_out(&cell.text, cell.tone));
            if column + 1 < N {
                let padding = widths[column] - width(&cell.text);
                out.extend(std::iter::repeat_n(' ', padding));
                out.push_str(GAP);
            }
        }
        out.push('\n');
    }
    out
}

/// "key  value" lines, one block.
#[derive(Debug, Default)]
pub(crate) struct Block(Vec<(String, Cell)>);

impl Block {
    /// A line; left out when there is nothing to say.
    pub(crate) fn add(&mut self, key: &str, value: impl AsRef<str>) -> &mut Self {
        self.toned(key, value, Tone::Plain)
    }

    pub(crate) fn toned(&mut self, key: &str, value: impl AsRef<str>, tone: Tone) -> &mut Self {
        if !value.as_ref().is_empty() {
            self.0.push((one_line(key), Cell::toned(value, tone)));
        }
        self
    }

    /// Several values under one key, each on a line.
    pub(crate) fn list(
        &mut self,
        key: &str,
        values: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> &mut Self {
        for (index, value) in values.into_iter().enumerate() {
            let key = if index == 0 {
                one_line(key)
            } else {
                String::new()
            };
            self.0.push((key, Cell::from(value.as_ref())));
        }
        self
    }

    pub(crate) fn render(&self, ui: &Ui) -> String {
        let key_width = self.0.iter().map(|(key, _)| width(key)).max().unwrap_or(0);
        let mut out = String::new();
        for (key, cell) in &self.0 {
            let padding = " ".repeat(key_width - width(key));
            out.push_str(&ui.paint_out(key, Tone::Faint));
            out.push_str(&format!(
                "{padding}{GAP}{}\n",
                ui.paint_out(&cell.text, cell.tone)
            ));
        }
        out
    }
}

/// Cuts a text for a table; what was cut shows as "…".
pub(crate) fn shorten(text: &str, width_max: usize) -> String {
    if width(text) <= width_max {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(width_max.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// Columns on a terminal. Wide scripts count as one: a table with them is a little ragged.
fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_empty_cells_show() {
        let ui = Ui::new(false, false);
        let rows = [
            ["sbx-1".into(), "".into(), "READY".into()],
            ["sbx-longer".into(), "web".into(), "FAILED".into()],
        ];
        assert_eq!(
            table(&ui, ["ID", "NAME", "STATE"], &rows),
            "ID          NAME  STATE\nsbx-1       -     READY\nsbx-longer  web   FAILED\n"
        );
    }

    #[test]
    fn a_block_leaves_out_what_is_empty() {
        let ui = Ui::new(false, false);
        let mut block = Block::default();
        block
            .add("id", "sbx-1")
            .add("name", "")
            .list("labels", ["a=1", "b=2"]);
        assert_eq!(
            block.render(&ui),
            "id      sbx-1\nlabels  a=1\n        b=2\n"
        );
    }

    #[test]
    fn long_texts_are_cut_visibly() {
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!(shorten("abcd", 4), "abcd");
    }
}
