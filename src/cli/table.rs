//! Aligned columns.

use std::io::{self, Write};

/// Which side of its column a cell keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Prints `rows` under `columns`, each as wide as its widest cell, two blanks apart. Nothing is
/// cut, and no line ends in blanks.
pub fn print<const N: usize>(
    out: &mut dyn Write,
    columns: [(&str, Side); N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let width = |cell: &str| cell.chars().count();
    let widths: [usize; N] = std::array::from_fn(|at| {
        let cells = rows.iter().map(|row| width(&row[at]));
        cells.max().unwrap_or(0).max(width(columns[at].0))
    });
    let mut line = |cell: &dyn Fn(usize) -> String| {
        let mut text = String::new();
        for (at, (_, side)) in columns.iter().enumerate() {
            let (cell, width) = (cell(at), widths[at]);
            let gap = if at == 0 { "" } else { "  " };
            text += &match side {
                Side::Left => format!("{gap}{cell:<width$}"),
                Side::Right => format!("{gap}{cell:>width$}"),
            };
        }
        writeln!(out, "{}", text.trim_end())
    };
    line(&|at| columns[at].0.to_owned())?;
    rows.iter().try_for_each(|row| line(&|at| row[at].clone()))
}

#[cfg(test)]
mod tests {
    use super::{Side, print};

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut out = Vec::new();
        let rows = [
            ["lan".into(), "5".into(), "up".into()],
            ["wide-area".into(), "12345678".into(), String::new()],
        ];
        let columns = [
            ("PORT", Side::Left),
            ("RX", Side::Right),
            ("LINK", Side::Left),
        ];
        print(&mut out, columns, &rows).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "PORT             RX  LINK\n\
             lan               5  up\n\
             wide-area  12345678\n"
        );
    }
}
