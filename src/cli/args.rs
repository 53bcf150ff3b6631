//! The command line for clap; completions and man pages are generated from it.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use super::units::{Ttl, seconds, ttl};

/// Shown after the list of commands, and in the man page.
const AFTER: &str = "\
TARGET is a store file (as `store=` of a cache names it), whether servers use it at the moment or not; or NAME@ADDRESS, \
a cache of a running uWSGI, where ADDRESS is HOST:PORT, the path of a unix socket, or @ and the name of an abstract one, that speaks the uwsgi protocol \
(`socket =`, not `http-socket =`). `@ADDRESS` is the server's first cache. A file whose name holds an @ is given as \
./FILE.

Over the protocol every server has get, set, add, del, exists, ttl, clear and load; incr, keys and dump need \
ucache on the other side; stat, touch, replace, append, prepend, set --keep-ttl, check, metrics, \
top and import need the file.

Exit status: 0 done; 1 no: the key is missing, or exists (add), or a check found damage; 2 wrong usage; 3 the target \
cannot be opened or reached; 4 the cache refused (too long, full, not a number, locked); 5 reading input or writing \
output failed; 6 the target cannot do it; 141 whoever read the output went away.";

/// Looks into caches of ucache: store files and running uWSGI servers.
#[derive(Debug, Parser)]
#[command(name = "ucache", version, after_help = AFTER, arg_required_else_help = true)]
pub(super) struct Cli {
    /// Seconds to wait for a server
    #[arg(long, global = true, default_value = "4", value_parser = seconds, value_name = "SECS")]
    pub(super) timeout: Duration,
    /// TARGET is the name of a cache whose values are at this server: URL[,option=value...], as
    /// `backend=` of a cache names it
    #[arg(long, global = true, value_name = "URL")]
    pub(super) backend: Option<String>,
    /// When to use colours and progress bars
    #[arg(long, global = true, value_enum, default_value_t = When::Auto, value_name = "WHEN")]
    pub(super) color: When,
    /// Also use stores on file systems that are not known to support them
    #[arg(long, global = true, value_enum, value_name = "HOW")]
    pub(super) store_fs: Option<StoreFs>,
    /// What to do
    #[command(subcommand)]
    pub(super) command: Command,
}

/// How to treat an unknown file system of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StoreFs {
    /// It shares memory between processes, and allocated space stays writable on a full disk
    Trust,
}

/// When to decorate the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum When {
    /// On terminals
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Creates a store file, which servers and programs can then share
    Create(Create),
    /// Statistics of a cache: fill, memory, hits, evictions, refusals, repairs
    Stat {
        /// Store file
        target: OsString,
        /// As one JSON object
        #[arg(long)]
        json: bool,
        /// Looks at every block, and shows what the memory is used for by size of block
        #[arg(long)]
        classes: bool,
    },
    /// Lists keys with their time to live and size
    Keys(Keys),
    /// Writes a value to standard output, byte for byte
    Get {
        #[command(flatten)]
        at: At,
        /// The value is a counter: print it as a number
        #[arg(long, conflicts_with = "json")]
        int: bool,
        /// Key, value and expiry as one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Stores a value, whether the key exists or not
    Set {
        #[command(flatten)]
        store: Store,
        /// An existing key keeps its expiry
        #[arg(long, conflicts_with = "ttl")]
        keep_ttl: bool,
    },
    /// Stores a value if the key is missing
    Add(Store),
    /// Stores a value if the key exists
    Replace {
        #[command(flatten)]
        store: Store,
        /// The key keeps its expiry
        #[arg(long, conflicts_with = "ttl")]
        keep_ttl: bool,
    },
    /// Adds bytes behind the value of an existing key, which keeps its expiry
    Append(Join),
    /// Adds bytes before the value of an existing key, which keeps its expiry
    Prepend(Join),
    /// Removes keys
    Del {
        /// Store file or NAME@ADDRESS
        target: OsString,
        /// The keys
        #[arg(required = true)]
        keys: Vec<OsString>,
        /// Keys are written as `keys` prints them: \n, \\, \x00
        #[arg(short, long)]
        escaped: bool,
    },
    /// Removes pages that uWSGI's route action `ucache:` has stored, and prints how many
    Purge(Purge),
    /// Tells by the exit status whether a key is stored
    Exists {
        #[command(flatten)]
        at: At,
    },
    /// Adds to a counter and prints the new number
    Incr {
        #[command(flatten)]
        at: At,
        /// How much to add; may be negative
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
        /// Time to live of a counter created by this command
        #[arg(long, value_parser = ttl, default_value = "never", value_name = "TTL")]
        ttl: Ttl,
    },
    /// Prints how many seconds a key has left, or `never`
    Ttl {
        #[command(flatten)]
        at: At,
    },
    /// Gives a key another time to live
    Touch {
        #[command(flatten)]
        at: At,
        /// Seconds, or with a unit: 90, 15m, 12h, 7d; 0 or never = no end
        #[arg(value_parser = ttl)]
        ttl: Ttl,
    },
    /// Removes all keys
    Clear {
        /// Store file or NAME@ADDRESS
        target: OsString,
    },
    /// Writes all items as JSON Lines, or as a stream for `redis-cli --pipe`
    Dump(Dump),
    /// Stores the items of a `dump`
    Load(Load),
    /// Checks a store file: every entry, its checksum and its location
    Check {
        /// Store file
        target: OsString,
        /// Drop damaged items
        #[arg(long)]
        repair: bool,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Converts a store file of native uWSGI; the old file is kept beside the new one
    Import(Import),
    /// Live view: rates, hit ratio, fill, hottest and largest keys
    Top(Top),
    /// Statistics in the text format of Prometheus
    Metrics {
        /// Store files
        #[arg(required = true)]
        targets: Vec<OsString>,
        /// Serve them over HTTP, for example on 127.0.0.1:9180; loopback addresses only
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
    },
    /// Measures operations per second and their latency
    Bench(Bench),
    /// Writes a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Writes the manual page, or all pages into a directory
    Man {
        /// Directory for ucache.1, ucache-get.1, ...
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

/// One key of one cache.
#[derive(Args, Debug)]
pub(super) struct At {
    /// Store file or NAME@ADDRESS
    pub(super) target: OsString,
    /// The key
    pub(super) key: OsString,
    /// The key is written as `keys` prints it: \n, \\, \x00
    #[arg(short, long)]
    pub(super) escaped: bool,
}

/// Common arguments of `set`, `add` and `replace`.
#[derive(Args, Debug)]
pub(super) struct Store {
    #[command(flatten)]
    pub(super) at: At,
    /// The value; without it, or with -, standard input is read to its end
    #[arg(allow_hyphen_values = true)]
    pub(super) value: Option<OsString>,
    /// The value is a counter, given as a number
    #[arg(long)]
    pub(super) int: bool,
    /// Time to live: seconds, or with a unit: 90, 15m, 12h, 7d; 0 or never = no end
    #[arg(long, value_parser = ttl, default_value = "never", value_name = "TTL")]
    pub(super) ttl: Ttl,
}

/// Arguments of `purge`.
#[derive(Args, Debug)]
#[command(override_usage = "ucache purge [OPTIONS] <TARGET> <URL|--prefix <PREFIX>|--tag <TAG>>")]
#[command(group(clap::ArgGroup::new("which").required(true).args(["url", "prefix", "tag"])))]
pub(super) struct Purge {
    /// Store file or NAME@ADDRESS
    pub(super) target: OsString,
    /// The page of this key, with all variants: a URL (http://host/path?query), or what the route's
    /// `key` makes
    pub(super) url: Option<OsString>,
    /// All pages whose keys begin so
    #[arg(short, long)]
    pub(super) prefix: Option<OsString>,
    /// All pages with this tag
    #[arg(short, long)]
    pub(super) tag: Option<OsString>,
    /// Keep them, to be served while they are refreshed, as their routes allow
    #[arg(short, long)]
    pub(super) soft: bool,
}

/// Common arguments of `append` and `prepend`.
#[derive(Args, Debug)]
pub(super) struct Join {
    #[command(flatten)]
    pub(super) at: At,
    /// The bytes; without them, or with -, standard input is read to its end
    #[arg(allow_hyphen_values = true)]
    pub(super) bytes: Option<OsString>,
}

/// Arguments of `keys`.
#[derive(Args, Debug)]
pub(super) struct Keys {
    /// Store file or NAME@ADDRESS
    pub(super) target: OsString,
    #[command(flatten)]
    pub(super) select: Select,
    /// With time to live and size
    #[arg(short, long)]
    pub(super) long: bool,
    /// Ends each key with a NUL byte and prints it unescaped
    #[arg(short = '0', long, conflicts_with_all = ["long", "json"])]
    pub(super) null: bool,
    /// One JSON object per line
    #[arg(long)]
    pub(super) json: bool,
    /// Prints only the number of keys
    #[arg(short, long, conflicts_with_all = ["long", "json", "null"])]
    pub(super) count: bool,
}

/// Which keys.
#[derive(Args, Debug)]
pub(super) struct Select {
    /// Only keys that match this pattern: * ? [abc] {a,b}; * matches any bytes
    pub(super) pattern: Option<String>,
    /// Only keys that start with this
    #[arg(short, long)]
    pub(super) prefix: Option<OsString>,
}

/// Arguments of `create`.
#[derive(Args, Debug)]
pub(super) struct Create {
    /// The file, which must not exist
    pub(super) file: PathBuf,
    /// Maximum number of items. uWSGI counts one more: `items=101` there is 100 here
    #[arg(short, long)]
    pub(super) items: u64,
    #[command(flatten)]
    pub(super) shape: Shape,
}

/// Common arguments of `create` and `import`; the names are those of a cache's definition.
#[derive(Args, Debug)]
pub(super) struct Shape {
    /// The cache's name; by default the file's, up to its first dot
    #[arg(short, long)]
    pub(super) name: Option<String>,
    /// Longest key, bytes
    #[arg(long, default_value_t = 2048)]
    pub(super) keysize: u64,
    /// Longest value, bytes; if blocks are counted, the size of a block
    #[arg(long, default_value_t = 65_536)]
    pub(super) blocksize: u64,
    /// A full cache evicts the least recently used item
    #[arg(long)]
    pub(super) purge_lru: bool,
}

/// Arguments of `import`: native files have no header.
#[derive(Args, Debug)]
pub(super) struct Import {
    /// The file named by `store=`
    pub(super) file: PathBuf,
    /// `items` of its cache, as in the configuration
    #[arg(short, long)]
    pub(super) items: u64,
    #[command(flatten)]
    pub(super) shape: Shape,
    /// `blocks` of its cache; by default the number of items
    #[arg(long)]
    pub(super) blocks: Option<u64>,
    /// Its cache had `bitmap=1`
    #[arg(long)]
    pub(super) bitmap: bool,
}

/// Formats of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One JSON object per line; bytes that are not UTF-8 in base64
    Jsonl,
    /// SET commands of the Redis protocol (EXAT needs Redis 6.2 or later, or Valkey)
    Resp,
}

/// Arguments of `dump`.
#[derive(Args, Debug)]
pub(super) struct Dump {
    /// Store file or NAME@ADDRESS
    pub(super) target: OsString,
    #[command(flatten)]
    pub(super) select: Select,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Jsonl)]
    pub(super) format: Format,
    /// Output file; it appears when it is complete
    #[arg(short, long)]
    pub(super) output: Option<PathBuf>,
    /// Writes counters (8-byte values that are not text) as decimal text, as Redis stores them
    #[arg(long)]
    pub(super) numbers: bool,
}

/// Arguments of `load`.
#[derive(Args, Debug)]
pub(super) struct Load {
    /// Store file or NAME@ADDRESS
    pub(super) target: OsString,
    /// Input file; by default standard input
    pub(super) input: Option<PathBuf>,
    /// Input format
    #[arg(short, long, value_enum, default_value_t = Format::Jsonl)]
    pub(super) format: Format,
    /// Keeps existing keys unchanged
    #[arg(long)]
    pub(super) keep: bool,
}

/// Arguments of `top`.
#[derive(Args, Debug)]
pub(super) struct Top {
    /// Store file
    pub(super) target: OsString,
    /// Seconds between two updates, 0.1 to 3600
    #[arg(short, long, default_value = "1", value_parser = seconds, value_name = "SECS")]
    pub(super) interval: Duration,
    /// Writes one screen as text, after one interval, and exits
    #[arg(long)]
    pub(super) once: bool,
}

/// Arguments of `bench`.
#[derive(Args, Debug)]
pub(super) struct Bench {
    /// Store file or NAME@ADDRESS; by default a new cache in memory
    pub(super) target: Option<OsString>,
    /// Seconds for each kind of operation
    #[arg(short, long, default_value = "1", value_parser = seconds, value_name = "SECS")]
    pub(super) seconds: Duration,
    /// Threads
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(super) threads: u32,
    /// Different keys
    #[arg(short, long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) keys: u32,
    /// Bytes of a value
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) size: u32,
    /// As one JSON object
    #[arg(long, action = ArgAction::SetTrue)]
    pub(super) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
