//! Completion scripts and manual pages, generated from the command line's definition.

use std::{fs, io::Write, path::Path};

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::{
    Context,
    args::Cli,
    failure::{Failure, Outcome},
};

pub(super) fn completions(context: &mut Context, shell: Shell) -> Outcome {
    // Into memory first: the generator panics if it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ucache", &mut script);
    Ok(context.out.write_all(&script)?)
}

pub(super) fn man(context: &mut Context, dir: Option<&Path>) -> Outcome {
    let mut command = Cli::command();
    command.build();
    let Some(dir) = dir else {
        Man::new(command).render(&mut context.out)?;
        return Ok(());
    };
    fs::create_dir_all(dir).map_err(|e| Failure::output(&e, &dir.display().to_string()))?;
    write(&dir.join("ucache.1"), &Man::new(command.clone()))?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let name = format!("ucache-{}", sub.get_name());
        write(&dir.join(format!("{name}.1")), &Man::new(sub.clone().name(name.clone()).bin_name(name)))?;
    }
    Ok(())
}

fn write(path: &Path, page: &Man) -> Outcome {
    let mut text = Vec::new();
    page.render(&mut text)?;
    fs::write(path, text).map_err(|e| Failure::output(&e, &path.display().to_string()))
}
