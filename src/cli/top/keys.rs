//! What keys mean in `top`, and the page that says so, from one table.

use super::state::View;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // KEYS says it
pub enum Action {
    Quit,
    /// To the overview, or out of the help.
    Back,
    Help,
    Pause,
    Show(View),
    Next,
    Previous,
    Sort,
    Reverse,
    Slower,
    Faster,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
}

/// Keys, what they do, and in which words the help says it. Rows without words follow one that has.
const KEYS: &[(KeyCode, Action, &str)] = &[
    (KeyCode::Char('q'), Action::Quit, "q, ^C     end"),
    (
        KeyCode::Char('h'),
        Action::Help,
        "h, ?      this page, and back",
    ),
    (KeyCode::Char('?'), Action::Help, ""),
    (KeyCode::F(1), Action::Help, ""),
    (KeyCode::Esc, Action::Back, "Esc       the overview"),
    (
        KeyCode::Tab,
        Action::Next,
        "Tab       next view, and Shift-Tab the one before (or arrows)",
    ),
    (KeyCode::Right, Action::Next, ""),
    (KeyCode::BackTab, Action::Previous, ""),
    (KeyCode::Left, Action::Previous, ""),
    (
        KeyCode::Char(' '),
        Action::Pause,
        "space, p  let the screen stand still, and go on",
    ),
    (KeyCode::Char('p'), Action::Pause, ""),
    (
        KeyCode::Char('s'),
        Action::Sort,
        "s         sort by the next column (v is by its title)",
    ),
    (
        KeyCode::Char('r'),
        Action::Reverse,
        "r         the other way round (^)",
    ),
    (
        KeyCode::Char('+'),
        Action::Slower,
        "+, -      look less often, more often",
    ),
    (KeyCode::Char('='), Action::Slower, ""),
    (KeyCode::Char('-'), Action::Faster, ""),
    (
        KeyCode::Down,
        Action::Down,
        "arrows    down and up, also j and k, PgDn and PgUp, Home and End",
    ),
    (KeyCode::Char('j'), Action::Down, ""),
    (KeyCode::Up, Action::Up, ""),
    (KeyCode::Char('k'), Action::Up, ""),
    (KeyCode::PageDown, Action::PageDown, ""),
    (KeyCode::PageUp, Action::PageUp, ""),
    (KeyCode::Home, Action::First, ""),
    (KeyCode::End, Action::Last, ""),
];

/// What `key` means, if it means anything.
pub fn action(key: KeyEvent) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Action::Quit);
    }
    if let KeyCode::Char(digit @ '1'..='9') = key.code {
        let at = digit as usize - '1' as usize;
        return View::ALL.get(at).map(|view| Action::Show(*view));
    }
    let found = KEYS.iter().find(|(code, ..)| *code == key.code);
    found.map(|(_, action, _)| *action)
}

/// The help, line by line.
pub fn help() -> impl Iterator<Item = String> {
    let views = View::ALL.iter().zip(1..);
    let views: Vec<_> = views
        .map(|(view, digit)| format!("{digit} {}", view.name()))
        .collect();
    let words = KEYS.iter().map(|(_, _, words)| *words);
    let words = words.filter(|words| !words.is_empty()).map(str::to_owned);
    words.chain([String::new(), format!("views: {}", views.join("  "))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_the_help_says() {
        let press = |code| action(KeyEvent::new(code, KeyModifiers::NONE));
        assert_eq!(press(KeyCode::Char('q')), Some(Action::Quit));
        assert_eq!(
            press(KeyCode::Char('1')),
            Some(Action::Show(View::Overview))
        );
        assert_eq!(press(KeyCode::Char('7')), Some(Action::Show(View::Flows)));
        assert_eq!(press(KeyCode::Char('8')), None);
        assert_eq!(press(KeyCode::Char('c')), None);
        let control = |c| action(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL));
        assert_eq!((control('c'), control('q')), (Some(Action::Quit), None));
        let mut released = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        released.kind = KeyEventKind::Release;
        assert_eq!(action(released), None);
        // No key twice, and a page that fits the smallest usual screen.
        for (at, (code, ..)) in KEYS.iter().enumerate() {
            assert!(
                KEYS[..at].iter().all(|(other, ..)| other != code),
                "{code:?}"
            );
        }
        assert!(help().count() <= 20);
        assert!(help().all(|line| line.len() <= 78));
    }
}
