//! Gathers the settings from file, environment and flags, and reports every fault at once.
//!
//! A flag is stronger than an environment variable, which is stronger than the file, which is stronger than the
//! default. One table (`settings.rs`) names every setting; from it come the structs, the names, the check and the
//! documents. Nothing below the shell imports this module: the program turns [`Settings`] into the structs that
//! each part reads.

mod fault;
mod flags;
mod kind;
mod layers;
#[cfg(test)]
mod listing;
mod mcp_servers;
mod nearest;
mod roles;
mod rules;
mod settings;
mod shapes;
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use self::fault::{Fault, Faults, Place, Problem};
pub use self::flags::{arguments, file_argument, flags};
use self::layers::Layers;
use self::mcp_servers::Surroundings;
pub use self::mcp_servers::{
    McpEra, McpHttpSettings, McpInstances, McpServerSettings, McpServerTransport, McpStart, McpStdioSettings,
};
use self::rules::Held;
pub use self::settings::{
    AuthMethod, CheckOrigin, HistoryDurability, Jwt, LOCAL_HOSTS, LogFormat, McpCompat, Mode, SessionDurability,
    Settings,
};
#[cfg(test)]
pub use self::settings::{SECRET_BYTES_MIN, Secret};
use self::settings::{SECTIONS, TABLE};

/// The environment variable that names the settings file.
pub const FILE_VARIABLE: &str = "BENNU_CONFIG";

/// The settings file that is read where none is named and it exists, in the working directory.
pub const FILE_DEFAULT: &str = "bennu.toml";

/// Where settings come from.
///
/// Has no `Debug`: flags and variables may hold secrets.
#[derive(Clone, Default)]
pub struct Sources {
    /// The settings file. One that is named has to exist.
    pub file: Option<PathBuf>,
    /// Environment variables. Those without the prefix `BENNU_` matter only where the file names one.
    pub env: Vec<(String, String)>,
    /// Flags as dotted key and value: `("server.listen", "127.0.0.1:4001")`.
    pub flags: Vec<(String, String)>,
    /// Whether the program brings an authenticator, as `auth.method = "module"` demands.
    pub authenticator: bool,
}

/// Reads and checks the settings.
///
/// # Errors
/// [`Faults`], every fault of every source. Only where the file can't be read as TOML, the rules between settings
/// are not judged: what they would look at may be in the part that was not understood.
pub fn load(sources: &Sources) -> Result<Settings, Faults> {
    load_with(sources, &Disk)
}

/// Returns the settings file to read: the one of `--config`, or of `BENNU_CONFIG`, or `bennu.toml` where it exists.
pub fn default_path(flag: Option<&Path>, env: &[(String, String)]) -> Option<PathBuf> {
    let named = env.iter().find(|(name, _)| name == FILE_VARIABLE).map(|(_, path)| PathBuf::from(path));
    flag.map(Path::to_owned).or(named).or_else(|| Some(PathBuf::from(FILE_DEFAULT)).filter(|path| path.exists()))
}

/// Returns the variables of this process.
///
/// Bytes that are not UTF-8 become U+FFFD.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, text)| (name.to_string_lossy().into_owned(), text.to_string_lossy().into_owned()))
        .collect()
}

/// The little that the settings ask of a disk, so that tests need none.
trait Files {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    fn is_folder(&self, path: &Path) -> bool;
}

struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn is_folder(&self, path: &Path) -> bool {
        path.is_dir()
    }
}

fn load_with(sources: &Sources, files: &dyn Files) -> Result<Settings, Faults> {
    let mut faults = Vec::new();
    let mut layers = Layers::default();

    if let Some(path) = &sources.file {
        match read_text(path, files) {
            Ok(text) => layers.add_file(path, &text, &mut faults),
            Err(problem) => {
                let place = Place::File { path: path.clone(), line: None };
                faults.push(Fault { place, problem });
            }
        }
    }
    let file_is_understood = !faults
        .iter()
        .any(|fault| matches!(fault.problem, Problem::Unreadable(_) | Problem::NotText | Problem::Syntax(_)));
    layers.add_environment(&sources.env, &mut faults);
    layers.add_flags(&sources.flags, &mut faults);

    let held = Held::new(&layers);
    let mut mcp_servers = Vec::new();
    if file_is_understood {
        rules::judge(&held, sources.authenticator, files, &mut faults);
        let around = Surroundings { held: &held, env: &sources.env, files };
        mcp_servers = mcp_servers::settle(layers.mcp_servers(), &around, &mut faults);
    }
    let secret = rules::secret(&held, files, &mut faults);
    if faults.is_empty() {
        Ok(Settings { mcp_servers, roles: layers.roles().to_vec(), ..gather(&held, secret) })
    } else {
        Err(Faults(faults))
    }
}

fn read_text(path: &Path, files: &dyn Files) -> Result<String, Problem> {
    let bytes = files.read(path).map_err(Problem::Unreadable)?;
    String::from_utf8(bytes).map_err(|_| Problem::NotText)
}

/// Fills the structs from values that were all checked.
fn gather(held: &Held<'_>, secret: Option<String>) -> Settings {
    // A section is there even where none of its settings has a value.
    let section = |(name, _): &(&str, &str)| ((*name).to_owned(), toml::Table::new().into());
    let mut document: toml::Table = SECTIONS.iter().map(section).collect();
    let rows = TABLE.iter().filter(|setting| setting.key != "server.secret_key_base");
    let values = rows.filter_map(|setting| Some((setting.section(), setting.name(), held.value(setting)?)));
    let secret = secret.map(|secret| ("server", "secret_key_base", toml::Value::String(secret)));
    for (section, name, value) in values.chain(secret) {
        document[section].as_table_mut().expect("only tables were inserted").insert(name.to_owned(), value);
    }
    Settings::deserialize(document).expect("the table's kinds give what its types take")
}
