//! Tables on standard output: columns padded to their widest cell, three spaces between them, as docker prints them.
//! Every cell is made safe by [`crate::text::one_line`].

use std::io::{self, Write};

use crate::text;

/// Rows under a header.
#[derive(Debug, Clone)]
pub struct Table {
    rows: Vec<Vec<String>>,
    /// Columns that a cell takes with the spaces behind it, at least.
    least: usize,
}

/// Spaces between two cells.
const GAP: usize = 3;
/// What docker's tables give every cell.
const DOCKER_LEAST: usize = 10;

impl Table {
    /// A table with one row: the header.
    #[must_use]
    pub fn new(header: &[&str]) -> Self {
        Self {
            rows: vec![header.iter().map(|&cell| cell.to_owned()).collect()],
            least: 0,
        }
    }

    /// A table of lines with tabs between their cells, the header first, as docker sets them.
    #[must_use]
    pub fn of_docker<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut table = Self {
            rows: Vec::new(),
            least: DOCKER_LEAST,
        };
        for line in lines {
            table.row(line.split('\t').map(str::to_owned));
        }
        table
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(
            cells
                .into_iter()
                .map(|cell| text::one_line(&cell).into_owned())
                .collect(),
        );
    }

    /// Writes all rows. Nothing follows the last cell of a row.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|c| text::width(c))
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                line.push_str(cell);
                if column + 1 < row.len() {
                    let room = (widths[column] + GAP).max(self.least);
                    line.push_str(&" ".repeat(room - text::width(cell)));
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "SIZE"]);
        table.row(["a-long-name".to_owned(), "1B".to_owned()]);
        table.row(["大".to_owned(), String::new()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "NAME          SIZE\na-long-name   1B\n大\n"
        );
    }

    #[test]
    fn docker_gives_every_cell_ten_columns() {
        let table = Table::of_docker(["TAG\tIMAGE ID\tSIZE", "1\tab\t3MB"]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "TAG       IMAGE ID   SIZE\n1         ab         3MB\n"
        );
    }

    #[test]
    fn row44_cells_pass_no_control_character() {
        let mut table = Table::new(&["TAG"]);
        table.row(["a\x1b[2J\nb".to_owned()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "TAG\na\\x1b[2J\\nb\n");
    }
}
