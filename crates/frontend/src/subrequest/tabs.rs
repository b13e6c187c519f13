//! Tables as Go's `text/tabwriter` lays them out, with minimal width 0 and spaces: a column is as wide as its widest
//! cell in a run of lines that have it, and the last cell of a line belongs to no column.

use crate::subrequest::bounded::{Bounded, FormError};

/// Lays out `text`: cells end with a tab, lines with a line feed. Tabs and line feeds in values count too, as in Go.
pub(super) fn write(out: &mut Bounded, padding: usize, text: &str) -> Result<(), FormError> {
    // A form feed ends all columns.
    for block in text.split_inclusive('\u{c}') {
        layout(out, padding, block)?;
    }
    Ok(())
}

fn layout(out: &mut Bounded, padding: usize, block: &str) -> Result<(), FormError> {
    let lines: Vec<&str> = block.split_terminator(['\n', '\u{c}']).collect();
    // Widths of all runs, and for each cell that a tab ends the run it is in.
    let mut runs: Vec<usize> = Vec::new();
    let mut run_of: Vec<usize> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    for line in &lines {
        let mut columns = 0;
        for cell in terminated(line) {
            if columns == open.len() {
                open.push(runs.len());
                runs.push(0);
            }
            let run = open[columns];
            runs[run] = runs[run].max(cell.chars().count() + padding);
            run_of.push(run);
            columns += 1;
        }
        open.truncate(columns);
    }
    let mut run_of = run_of.into_iter();
    for line in &lines {
        for (cell, run) in terminated(line).zip(&mut run_of) {
            out.push(cell.as_bytes())?;
            out.pad(runs[run] - cell.chars().count())?;
        }
        let last = line.rsplit(is_cell_end).next().unwrap_or_default();
        out.push(last.as_bytes())?;
        out.push(b"\n")?;
    }
    Ok(())
}

/// The cells that a tab ends.
fn terminated(line: &str) -> impl Iterator<Item = &str> {
    let ended = line.rfind(is_cell_end).map(|end| &line[..end]);
    ended.into_iter().flat_map(|cells| cells.split(is_cell_end))
}

fn is_cell_end(c: char) -> bool {
    matches!(c, '\t' | '\u{b}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(padding: usize, text: &str) -> String {
        let mut out = Bounded::default();
        write(&mut out, padding, text).unwrap();
        String::from_utf8(out.into_bytes()).unwrap()
    }

    #[test]
    fn columns_are_runs_of_lines() {
        assert_eq!(laid_out(1, "A\tB\nlong\t\n"), "A    B\nlong \n");
        assert_eq!(laid_out(3, "A\t\tC\nx\tyy\t\n"), "A        C\nx   yy   \n");
        // The middle line has one column less, which ends the second run.
        assert_eq!(
            laid_out(1, "a\tb\tc\naaa\tb\na\tbbbb\tc\n"),
            "a   b c\naaa b\na   bbbb c\n"
        );
        assert_eq!(laid_out(1, "é\tx\nab\ty\n"), "é  x\nab y\n");
    }

    #[test]
    fn values_that_hold_tabs_and_lines_shift_cells_as_in_go() {
        assert_eq!(laid_out(1, "a\tb\u{b}c\td\n"), "a b c d\n");
        assert_eq!(laid_out(1, "a\tb\nlonger\u{c}x\ty\n"), "a b\nlonger\nx y\n");
        assert_eq!(laid_out(1, "\n"), "\n");
        assert_eq!(laid_out(1, ""), "");
    }

    #[test]
    fn row50_wide_cells_and_many_columns_are_cheap_or_refused() {
        let wide = format!("{}\tx\n{}", "w".repeat(1 << 20), "a\tb\n".repeat(100));
        let mut out = Bounded::default();
        assert_eq!(write(&mut out, 1, &wide), Err(FormError::TooLong));
        let deep = format!("{}\n{}", "\t".repeat(1 << 20), "a\n".repeat(1 << 16));
        assert_eq!(laid_out(1, &deep).len(), (1 << 20) + 1 + (2 << 16));
    }
}
