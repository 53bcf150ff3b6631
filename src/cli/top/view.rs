//! The screen that `top` draws.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Borders, Gauge, Paragraph, Sparkline},
};

use super::model::{Model, Ranked};
use crate::cli::text::{count, escape, fit, percent, rate, size};

/// Lines above the lists: title, fill, two plots, figures.
const PLOT: u16 = 5;

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let area = frame.area();
    let wide = area.width >= 70;
    let more = if model.near.is_some() { 2 } else { 0 };
    let figures = if wide { 4 + more / 2 } else { 7 + more };
    let plots = if wide { PLOT } else { (PLOT - 1) * 2 };
    // From the top, as far as the screen goes: a layout would shrink all parts.
    let mut top = area.y;
    let mut rows = |wanted: u16| {
        let height = wanted.min(area.bottom() - top);
        let part = Rect { y: top, height, ..area };
        top += height;
        part
    };
    let (title, fill, plots, numbers, lists) = (rows(1), rows(1), rows(plots), rows(figures), rows(u16::MAX));
    head(frame, title, model);
    gauge(frame, fill, model);
    history(frame, plots, model, wide);
    rates(frame, numbers, model, wide);
    let [left, middle, right] = if wide {
        Layout::horizontal([Constraint::Fill(3), Constraint::Fill(3), Constraint::Fill(2)]).areas(lists)
    } else {
        // Two rows for the bars only if enough rows are left for the lists.
        let bars = if lists.height >= 7 { 2 } else { 0 };
        Layout::vertical([Constraint::Fill(1), Constraint::Fill(1), Constraint::Length(bars)]).areas(lists)
    };
    list(frame, left, "hottest", &model.hottest, "needs purge_lru or evict=, or routers' hits");
    list(frame, middle, "largest", &model.largest, "no items");
    shards(frame, right, model);
}

fn head(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let name = escape(model.engine.config().name.as_bytes());
    let state = if model.paused { "  paused" } else { "" };
    let line = Line::from(vec![
        Span::styled(format!("ucache  {name}"), Style::new().add_modifier(Modifier::BOLD)),
        Span::styled(state, Style::new().fg(Color::Yellow)),
        Span::raw("  q quit, p pause").dim(),
    ]);
    frame.render_widget(Paragraph::new(line), area);
}

fn gauge(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let s = &model.stats;
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let share = if s.capacity == 0 { 0.0 } else { (s.items as f64 / s.capacity as f64).clamp(0.0, 1.0) };
    let text = format!("{} of {} items, {}", count(s.items), count(s.capacity), size(s.bytes));
    let gauge = Gauge::default().ratio(share).label(fit(&text, area.width.into())).gauge_style(Color::Cyan);
    frame.render_widget(gauge, area);
}

fn history(frame: &mut Frame<'_>, area: Rect, model: &Model, wide: bool) {
    let halves = [Constraint::Fill(1), Constraint::Fill(1)];
    let [left, right] = if wide { Layout::horizontal(halves) } else { Layout::vertical(halves) }.areas(area);
    let operations = format!("operations {}/s", rate(model.rates.reads + model.rates.writes));
    let reads = model.stats.hits + model.stats.misses;
    let ratio = format!(
        "hit ratio {} %, ever {}",
        model.ratios.back().copied().unwrap_or(0),
        percent(model.stats.hits, reads)
    );
    let plots = [(left, operations, &model.operations, None), (right, ratio, &model.ratios, Some(100))];
    for (area, title, values, max) in plots {
        let block = Block::new().borders(Borders::ALL).title(title);
        let width = usize::from(block.inner(area).width);
        let newest: Vec<u64> = values.iter().skip(values.len().saturating_sub(width)).copied().collect();
        let mut plot = Sparkline::default().block(block).data(&newest).style(Color::Green);
        if let Some(max) = max {
            plot = plot.max(max);
        }
        frame.render_widget(plot, area);
    }
}

fn rates(frame: &mut Frame<'_>, area: Rect, model: &Model, wide: bool) {
    let (r, s) = (&model.rates, &model.stats);
    let mut all = vec![
        format!("reads {}/s", rate(r.reads)),
        format!("writes {}/s", rate(r.writes)),
        format!("evicted {}/s, ever {}", rate(r.evicted), count(s.evicted)),
        format!("expired {}/s, ever {}", rate(r.expired), count(s.expired)),
        format!("rejected {}/s, ever {}", rate(r.rejected), count(s.rejected_limit + s.rejected_full)),
        format!("full {}, waits {}, timeouts {}", count(s.full), count(s.lock_waits), count(s.timeouts)),
        format!("deaths {}, rebuilt {}, dropped {}", s.owner_dead, s.repaired, s.dropped_corrupt),
    ];
    if let Some(near) = &model.near {
        let beat = near.beat_age_ms.map_or_else(|| "none".to_owned(), |age| format!("{} ms", count(age)));
        all.push(format!("copies hit {} %, changes {}/s", model.near_ratio, rate(r.changes)));
        let server = if near.is_down { "down" } else { "up" };
        all.push(format!(
            "server {server}, beat {beat}, owner {}, terms {}",
            near.owner_pid,
            count(near.terms)
        ));
        all.push(format!("fills {}, voided {}", count(near.fills), count(near.fills_voided)));
    }
    let trouble = s.timeouts + s.dropped_corrupt > 0;
    let color = |i: usize| if i >= 5 && trouble { Style::new().fg(Color::Red) } else { Style::new() };
    let spans: Vec<Span<'_>> = all.into_iter().enumerate().map(|(i, t)| Span::styled(t, color(i))).collect();
    let columns = if wide { 2 } else { 1 };
    let lines = spans.len().div_ceil(columns);
    for (i, span) in spans.into_iter().enumerate() {
        let (x, y) = ((i / lines) as u16, (i % lines) as u16);
        let width = area.width / columns as u16;
        let cell = Rect { x: area.x + x * width, y: area.y + y, width, height: 1 };
        frame.render_widget(Paragraph::new(span), cell.intersection(area));
    }
}

fn list(frame: &mut Frame<'_>, area: Rect, title: &str, items: &[Ranked], nothing: &str) {
    let block = Block::new().borders(Borders::TOP).title(title.to_owned());
    let inner = block.inner(area);
    let width = usize::from(inner.width);
    let line = |item: &Ranked| {
        let len = size(item.len);
        let key = fit(&escape(&item.key), width.saturating_sub(len.len() + 2));
        let gap = width.saturating_sub(key.chars().count() + len.len() + 1);
        Line::raw(format!("{key}{}{len}", " ".repeat(gap)))
    };
    let mut lines: Vec<Line<'_>> = items.iter().take(inner.height.into()).map(line).collect();
    if lines.is_empty() {
        lines.push(Line::raw(nothing.to_owned()).dim());
    }
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// The fill of the shards; a bar shows several if there are many.
fn shards(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let block = Block::new().borders(Borders::TOP).title(format!("shards: {}", model.shards.len()));
    let inner = block.inner(area);
    let width = usize::from(inner.width).max(1);
    let together = model.shards.len().div_ceil(width).max(1);
    let bars: Vec<u64> = model.shards.chunks(together).map(|c| c.iter().sum()).collect();
    let fair = model.stats.capacity.div_ceil((model.shards.len() as u64).max(1)) * together as u64;
    // A shard may hold more than its share: the limit applies to the whole cache.
    let max = bars.iter().copied().max().unwrap_or(0).max(fair).max(1);
    frame.render_widget(Sparkline::default().block(block).data(&bars).max(max).style(Color::Blue), area);
}
