//! A board against a list; with full buckets; with owners and takers on several threads.

use super::*;
use proptest::prelude::*;
use std::sync::atomic::AtomicBool;

fn board(owners: usize, max: u32) -> (Board<2>, Vec<Poster>, Vec<Reader>) {
    let (domain, mut readers) = Domain::new(owners);
    readers.iter_mut().for_each(Reader::quiescent);
    let (board, posters) = Board::new(domain, owners, max).unwrap();
    (board, posters, readers)
}

/// Takes a live note with these words.
fn take(board: &Board<2>, reader: &Reader, hash: u64, words: [u64; 2]) -> Option<NoteId> {
    let is = |note: &Note<2>| note.state() == State::Live && note.words() == words;
    let look = |note: &Note<2>| if is(note) { Look::Take } else { Look::Pass };
    board.find(reader, hash, look).map(|(id, _)| id)
}

#[test]
fn a_note_is_taken_once_and_used_again_after_a_grace_period() {
    let (board, mut posters, mut readers) = board(1, 4);
    let (poster, reader) = (&mut posters[0], &mut readers[0]);
    assert!(board.is_empty() && poster.is_idle());
    let id = board.post(poster, 77, &[1, 2], false).unwrap();
    assert_eq!(board.len(), 1);
    assert_eq!(
        take(&board, reader, 78 << 32 | 77, [1, 2]),
        None,
        "another tag"
    );
    assert_eq!(take(&board, reader, 77, [1, 3]), None, "other words");
    assert_eq!(take(&board, reader, 77, [1, 2]), Some(id));
    assert_eq!(take(&board, reader, 77, [1, 2]), None);
    assert!(board.is_empty());
    assert!(
        !board.withdraw(poster, id),
        "who was taken cannot be withdrawn"
    );
    assert_eq!(board.note(id).state(), State::Gone);
    board.give_back(poster, id);
    board.reclaim(poster);
    board.reclaim(poster);
    assert!(!poster.is_idle(), "the reader may look at it still");
    reader.quiescent();
    board.reclaim(poster);
    assert!(poster.is_idle());
    assert_eq!(board.post(poster, 5, &[0, 0], false), Some(id));
}

#[test]
fn who_sleeps_is_passed_over_until_it_wakes() {
    let (board, mut posters, readers) = board(1, 4);
    let poster = &mut posters[0];
    let id = board.post(poster, 1, &[1, 2], true).unwrap();
    assert_eq!(board.note(id).state(), State::Asleep);
    let grab = |_: &Note<2>| Look::Take;
    assert_eq!(
        board.find(&readers[0], 1, grab).map(|(id, _)| id),
        None,
        "nor is it taken by who asks for it"
    );
    board.wake(poster, id);
    board.set_word(poster, id, 1, 9);
    assert_eq!(take(&board, &readers[0], 1, [1, 9]), Some(id));
    board.wake(poster, id);
    assert_eq!(
        board.note(id).state(),
        State::Gone,
        "what is gone stays gone"
    );
}

#[test]
fn notes_beyond_a_full_bucket_are_found_and_searches_end_again() {
    let (board, mut posters, readers) = board(1, 200);
    let poster = &mut posters[0];
    let mut ids = Vec::new();
    while let Some(id) = board.post(poster, 3, &[ids.len() as u64, 0], false) {
        ids.push(id);
    }
    assert_eq!(ids.len(), SLOTS * REACH, "so many under one hash");
    assert_eq!(
        board.len() as usize,
        ids.len(),
        "what found no place does not count"
    );
    let other = board
        .post(poster, 1 << 40 | 0xffff_ffff, &[7, 7], false)
        .unwrap();
    for (at, id) in ids.iter().enumerate().rev() {
        if at % 2 == 0 {
            assert_eq!(take(&board, &readers[0], 3, [at as u64, 0]), Some(*id));
        } else {
            assert!(board.withdraw(poster, *id));
        }
    }
    assert!(
        board
            .buckets
            .iter()
            .all(|bucket| bucket.spilled.load(Relaxed) == 0)
    );
    assert!(board.withdraw(poster, other));
    assert!(board.is_empty());
}

#[test]
fn no_more_than_may_be_are_posted() {
    let (board, mut posters, _) = board(2, 10);
    let mut posted = 0;
    for turn in 0..20u64 {
        let poster = &mut posters[turn as usize % 2];
        posted += u32::from(board.post(poster, turn << 20, &[0, 0], false).is_some());
    }
    assert_eq!((posted, board.len()), (10, 10));
}

/// Two owners and two takers: every note is taken once, whole, and arenas do not run out.
#[test]
fn threads_take_each_note_once() {
    const NOTES: u64 = 10_000;
    let (domain, readers) = Domain::new(4);
    let (board, posters) = Board::<2>::new(domain, 2, 64).unwrap();
    let taken: Vec<AtomicU32> = (0..2 * NOTES).map(|_| AtomicU32::new(0)).collect();
    let done = AtomicBool::new(false);
    let mut readers = readers.into_iter();
    std::thread::scope(|scope| {
        let (board, taken, done) = (&board, &taken, &done);
        let mut owners = Vec::new();
        for (owner, mut poster) in posters.into_iter().enumerate() {
            let mut reader = readers.next().unwrap();
            owners.push(scope.spawn(move || {
                let mut posted: Vec<(NoteId, u64)> = Vec::new();
                let mut number = 0;
                while number < NOTES || !posted.is_empty() {
                    reader.quiescent();
                    let value = owner as u64 * NOTES + number;
                    if number < NOTES
                        && let Some(id) =
                            board.post(&mut poster, value % 8, &[value, !value], false)
                    {
                        posted.push((id, value));
                        number += 1;
                    }
                    if number.is_multiple_of(64)
                        && let Some((id, value)) = posted.first()
                        && board.withdraw(&poster, *id)
                    {
                        taken[*value as usize].fetch_add(1, AcqRel);
                    }
                    posted.retain(|(id, _)| {
                        let gone = board.note(*id).state() == State::Gone;
                        if gone {
                            board.give_back(&mut poster, *id);
                        }
                        !gone
                    });
                    board.reclaim(&mut poster);
                }
                reader.offline();
            }));
        }
        for mut reader in readers {
            scope.spawn(move || {
                let mut turn = 0;
                while !done.load(Acquire) {
                    reader.quiescent();
                    turn += 1;
                    let mut value = 0;
                    let found = board.find(&reader, turn % 8, |note| {
                        let words = note.words();
                        if note.state() != State::Live {
                            return Look::Pass;
                        }
                        assert_eq!(words[0], !words[1], "half of another note");
                        value = words[0];
                        Look::Take
                    });
                    if let Some((_, note)) = found {
                        assert_eq!(note.word(0), value, "used again while it is looked at");
                        taken[value as usize].fetch_add(1, AcqRel);
                    }
                }
            });
        }
        for owner in owners {
            owner.join().unwrap();
        }
        done.store(true, Release);
    });
    assert!(taken.iter().all(|times| times.load(Relaxed) == 1));
    assert!(board.is_empty());
}

proptest! {
    #[test]
    fn it_is_a_list(steps in prop::collection::vec((0u8..4, 0u64..6, 0u64..4), 0..300)) {
        let (board, mut posters, mut readers) = board(1, 64);
        let (poster, reader) = (&mut posters[0], &mut readers[0]);
        let mut list: Vec<(NoteId, u64, u64)> = Vec::new();
        let mut gone = Vec::new();
        for (step, hash, word) in steps {
            // A few homes, and two tags.
            let hash = (hash & 1) << 50 | hash;
            match step {
                0 | 1 => {
                    let posted = board.post(poster, hash, &[word, hash], false);
                    prop_assert_eq!(posted.is_some(), list.len() < 64);
                    list.extend(posted.map(|id| (id, hash, word)));
                }
                2 => {
                    let found = take(&board, reader, hash, [word, hash]);
                    let known = list.iter().any(|(_, h, w)| (*h, *w) == (hash, word));
                    prop_assert_eq!(found.is_some(), known);
                    list.retain(|(id, ..)| Some(*id) != found);
                    gone.extend(found);
                }
                _ => {
                    if let Some((id, ..)) = list.pop() {
                        prop_assert!(board.withdraw(poster, id));
                        gone.push(id);
                    }
                    for id in gone.drain(..) {
                        board.give_back(poster, id);
                    }
                    reader.quiescent();
                    board.reclaim(poster);
                }
            }
            prop_assert_eq!(board.len() as usize, list.len());
        }
    }
}
