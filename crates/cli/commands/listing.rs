//! What `images`, `history` and `ps` print: rows in docker's table, as JSON, or as a template says, which may ask for a
//! table of its own. Owns the forms of `--format`; what the rows are is the command's.

use std::io;

use rbuild_ui::table::Table;
use rbuild_ui::template::Template;
use rbuild_ui::text::lines;
use serde_json::Value;

use super::CommandError;
use crate::env::Env;

/// The word that asks for a table.
const TABLE: &str = "table";

/// A field of the rows with its title in docker's tables.
pub(super) type Column = (&'static str, &'static str);

/// How rows are printed.
pub(super) struct Listing {
    columns: &'static [Column],
    form: Form,
}

enum Form {
    Table(Template),
    Json,
    Lines(Template),
}

impl Listing {
    /// What `format` asks for. `shown` are the fields that a table has by itself.
    pub(super) fn parse(
        format: &str,
        columns: &'static [Column],
        shown: &[&str],
    ) -> Result<Self, CommandError> {
        let template = |text: &str| Template::parse(text).map_err(|error| CommandError::failed(&error));
        let form = match format {
            "json" => Form::Json,
            "" | TABLE => {
                let cells: Vec<String> = shown.iter().map(|field| format!("{{{{.{field}}}}}")).collect();
                Form::Table(template(&cells.join("\t"))?)
            }
            _ => match format.strip_prefix(TABLE) {
                Some(text) => Form::Table(template(&unescaped(text))?),
                None => Form::Lines(template(&unescaped(format))?),
            },
        };
        Ok(Self { columns, form })
    }

    /// Prints `rows`, which have all fields that there are columns for.
    pub(super) fn write(&self, rows: &[Value], env: &mut Env) -> Result<(), CommandError> {
        let failed = |error| CommandError::failed(&format!("template parsing error: {error}"));
        match &self.form {
            Form::Json => {
                for row in rows {
                    serde_json::to_writer(&mut env.stdout, row).map_err(io::Error::from)?;
                    writeln!(env.stdout)?;
                }
            }
            Form::Lines(template) => {
                for row in rows {
                    let text = template.render(row).map_err(failed)?;
                    writeln!(env.stdout, "{}", lines(&text))?;
                }
            }
            Form::Table(template) => {
                let titles: serde_json::Map<String, Value> = self
                    .columns
                    .iter()
                    .map(|(field, title)| ((*field).to_owned(), (*title).into()))
                    .collect();
                let mut text = vec![template.render_header(&titles.into()).map_err(failed)?];
                for row in rows {
                    text.push(template.render(row).map_err(failed)?);
                }
                Table::of_docker(text.iter().flat_map(|row| row.split('\n'))).write(&mut env.stdout)?;
            }
        }
        Ok(env.stdout.flush()?)
    }
}

/// Docker takes `\t` and `\n` in a template's text for what they mean elsewhere.
fn unescaped(text: &str) -> String {
    text.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n")
}
