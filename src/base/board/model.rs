//! Every interleaving of posting, taking, withdrawing and using again.

use super::*;
use loom::sync::Arc as LoomArc;
use loom::thread;

type Setting = (LoomArc<Board<2>>, Vec<Poster>, Vec<Reader>);

fn setting(readers: usize, max: u32) -> Setting {
    let (domain, readers) = Domain::new(readers);
    let (board, posters) = Board::new(domain, 1, max).unwrap();
    (LoomArc::new(board), posters, readers)
}

/// Takes a note, and checks that it is whole, then and until the reader is quiescent.
fn take(board: &Board<2>, reader: &Reader, hash: u64) -> Option<u64> {
    let mut value = None;
    let look = |note: &Note<2>| {
        if note.state() != State::Live {
            return Look::Pass;
        }
        let [a, b] = note.words();
        assert_eq!(a, b, "half of a note");
        value = Some(a);
        Look::Take
    };
    let (_, note) = board.find(reader, hash, look)?;
    assert_eq!(Some(note.word(0)), value, "another note");
    assert_eq!(note.word(0), note.word(1), "half of a note");
    value
}

#[test]
fn what_is_posted_is_whole() {
    loom::model(|| {
        let (board, mut posters, mut readers) = setting(1, 1);
        let mut reader = readers.remove(0);
        reader.quiescent();
        let theirs = board.clone();
        let thread = thread::spawn(move || take(&theirs, &reader, 7));
        board.post(&mut posters[0], 7, &[5, 5], false).unwrap();
        let taken = thread.join().unwrap();
        assert_eq!(board.is_empty(), taken.is_some());
    });
}

#[test]
fn of_two_takers_one_wins() {
    loom::model(|| {
        let (board, mut posters, readers) = setting(2, 1);
        board.post(&mut posters[0], 7, &[5, 5], false).unwrap();
        let threads: Vec<_> = readers
            .into_iter()
            .map(|mut reader| {
                let board = board.clone();
                reader.quiescent();
                thread::spawn(move || take(&board, &reader, 7).is_some())
            })
            .collect();
        let wins = threads.into_iter().map(|thread| thread.join().unwrap());
        assert_eq!(wins.filter(|won| *won).count(), 1);
        assert!(board.is_empty());
    });
}

#[test]
fn of_a_taker_and_the_owner_one_wins() {
    loom::model(|| {
        let (board, mut posters, mut readers) = setting(1, 1);
        let id = board.post(&mut posters[0], 7, &[5, 5], false).unwrap();
        let mut reader = readers.remove(0);
        reader.quiescent();
        let theirs = board.clone();
        let thread = thread::spawn(move || take(&theirs, &reader, 7).is_some());
        let withdrawn = board.withdraw(&posters[0], id);
        let taken = thread.join().unwrap();
        assert!(withdrawn != taken);
        assert_eq!(board.note(id).state(), State::Gone);
        assert!(board.is_empty());
    });
}

/// The owner withdraws a note and posts another, in the same memory if the grace period is over;
/// a reader that looked at the first never sees the second in its place.
#[test]
fn nothing_is_used_again_while_somebody_may_look() {
    loom::model(|| {
        let (board, mut posters, mut readers) = setting(1, 1);
        let poster = &mut posters[0];
        let id = board.post(poster, 7, &[5, 5], false).unwrap();
        let mut reader = readers.remove(0);
        reader.quiescent();
        let theirs = board.clone();
        let thread = thread::spawn(move || {
            // A look that keeps: the words are read again later.
            let mut seen = None;
            let found = theirs.find(&reader, 7, |note| {
                seen = Some(note.words());
                Look::Keep
            });
            if let Some((_, note)) = found {
                let now = note.words();
                assert_eq!(Some(now), seen, "used again while it is looked at");
                assert_eq!(now[0], now[1]);
            }
            reader.quiescent();
        });
        if board.withdraw(poster, id) {
            board.give_back(poster, id);
            board.reclaim(poster);
            board.reclaim(poster);
            board.post(poster, 7, &[6, 6], false).unwrap();
        }
        thread.join().unwrap();
    });
}

/// Two notes under one hash, of which the second finds the bucket full: whoever looks for them while
/// they come and go finds whole ones, and in the end the bucket knows of none that passed it.
#[test]
fn what_found_its_bucket_full_is_found_behind_it() {
    loom::model(|| {
        let (board, mut posters, mut readers) = setting(1, 2);
        board.post(&mut posters[0], 7, &[5, 5], false).unwrap();
        let mut reader = readers.remove(0);
        reader.quiescent();
        let theirs = board.clone();
        let thread = thread::spawn(move || {
            let taken = take(&theirs, &reader, 7);
            (taken, reader)
        });
        board.post(&mut posters[0], 7, &[6, 6], false).unwrap();
        let (taken, mut reader) = thread.join().unwrap();
        assert!(taken.is_some(), "the first was there all the time");
        reader.quiescent();
        assert!(take(&board, &reader, 7).is_some(), "the other one");
        assert!(take(&board, &reader, 7).is_none() && board.is_empty());
        let spilled = board.buckets.iter().map(|b| b.spilled.load(Relaxed));
        assert_eq!(spilled.sum::<u64>(), 0);
    });
}

/// A note is woken while somebody looks for it.
#[test]
fn who_wakes_may_be_taken_once() {
    loom::model(|| {
        let (board, mut posters, mut readers) = setting(1, 1);
        let id = board.post(&mut posters[0], 7, &[5, 5], true).unwrap();
        let mut reader = readers.remove(0);
        reader.quiescent();
        let theirs = board.clone();
        let thread = thread::spawn(move || take(&theirs, &reader, 7).is_some());
        board.wake(&posters[0], id);
        let taken = thread.join().unwrap();
        let state = board.note(id).state();
        assert_eq!(state, if taken { State::Gone } else { State::Live });
        assert_eq!(board.withdraw(&posters[0], id), !taken);
        assert!(board.is_empty());
    });
}
