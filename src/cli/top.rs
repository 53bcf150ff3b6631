//! `top`: a live view of a store.

mod model;
mod view;

use std::{
    io::{IsTerminal, Write},
    thread,
    time::Instant,
};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::{
        event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
        terminal,
    },
};

use super::{
    Context,
    args::Top,
    failure::{Failure, Outcome, USAGE},
};
use model::Model;

pub(super) fn run(context: &mut Context, args: &Top) -> Outcome {
    let mut model = Model::new(context.look(&args.target, "top")?);
    if args.once {
        thread::sleep(args.interval);
        model.tick(args.interval);
        return picture(context, &model);
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::new(USAGE, "top needs a terminal").hint("--once writes one screen as text"));
    }
    let mut screen = ratatui::try_init()?;
    let end = watch(&mut screen, &mut model, args);
    ratatui::restore();
    end
}

/// Draws until the user quits.
fn watch(screen: &mut ratatui::DefaultTerminal, model: &mut Model, args: &Top) -> Outcome {
    let mut last = Instant::now();
    loop {
        screen.draw(|frame| view::draw(frame, model))?;
        let left = args.interval.saturating_sub(last.elapsed());
        if event::poll(left)? {
            match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Release => {}
                Event::Key(key) => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                    KeyCode::Char('p' | ' ') => model.paused = !model.paused,
                    _ => {}
                },
                _ => {}
            }
        }
        if last.elapsed() >= args.interval {
            model.tick(last.elapsed());
            last = Instant::now();
        }
    }
}

/// One screen as plain text, as large as the terminal, or 80 by 24.
fn picture(context: &mut Context, model: &Model) -> Outcome {
    let (width, height) = match terminal::size() {
        Ok((w, h)) if w > 0 && h > 0 && context.out.get_ref().is_terminal() => (w, h),
        _ => (size_of("COLUMNS", 80), size_of("LINES", 24)),
    };
    let lines = text(model, width, height)?;
    for line in lines {
        writeln!(context.out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn size_of(variable: &str, otherwise: u16) -> u16 {
    let given = std::env::var(variable).ok().and_then(|v| v.parse().ok());
    given.filter(|n| (1..=1000).contains(n)).unwrap_or(otherwise)
}

fn text(model: &Model, width: u16, height: u16) -> Outcome<Vec<String>> {
    let mut screen = Terminal::new(TestBackend::new(width, height))?;
    screen.draw(|frame| view::draw(frame, model))?;
    let buffer = screen.backend().buffer();
    Ok((0..height).map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect()).collect())
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::engine::{Config, Engine, Eviction, Expires, SetOptions, Touch};

    fn model() -> Model {
        let mut config = Config::new("watched", 100);
        config.eviction = Eviction::Lru;
        let engine = Engine::create(&config).unwrap();
        let mut model = Model::new(Arc::clone(&engine));
        let options = SetOptions::set(Expires::Never);
        for i in 0..50 {
            engine.set(format!("key {i}").as_bytes(), &vec![b'v'; 1000 * (i + 1)], &options).unwrap();
        }
        engine.set(b"esc \x1b[31m", b"v", &options).unwrap();
        engine.get(b"key 7", Touch::Yes, &mut Vec::new()).unwrap();
        engine.get(b"none", Touch::Yes, &mut Vec::new()).unwrap();
        model.tick(Duration::from_secs(1));
        model
    }

    #[test]
    fn a_large_picture_has_everything() {
        let all = text(&model(), 100, 40).unwrap().join("\n");
        for part in
            ["watched", "51 of 100", "hit ratio", "50.0 %", "53/s", "key 49", "48.8 KiB", "evicted", "shards"]
        {
            assert!(all.contains(part), "{part:?} in\n{all}");
        }
        let hottest = all.split("hottest").nth(1).expect("a list of the hottest");
        assert!(hottest.lines().nth(1).expect("a first line").contains("key 7"), "{all}");
        assert!(!all.contains('\x1b'), "a key cannot command the terminal");
    }

    #[test]
    fn every_size_is_drawn() {
        let model = model();
        for (width, height) in [(40, 24), (40, 10), (20, 5), (1, 1), (300, 100), (80, 3)] {
            let all = text(&model, width, height).unwrap();
            assert!(all.iter().all(|line| line.chars().count() == usize::from(width)), "{width}x{height}");
        }
        let narrow = text(&model, 40, 24).unwrap().join("\n");
        for part in ["watched", "51 of 100", "hit ratio", "evicted"] {
            assert!(narrow.contains(part), "{part:?} in\n{narrow}");
        }
    }

    #[test]
    fn what_is_paused_stands_still() {
        let mut model = model();
        model.paused = true;
        let before = text(&model, 80, 24).unwrap();
        model.tick(Duration::from_secs(1));
        assert_eq!(text(&model, 80, 24).unwrap(), before);
        assert!(before.join("").contains("paused"));
    }
}
