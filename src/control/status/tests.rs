use super::*;
use crate::control::testbed::Bed;

fn page(bed: &Bed) -> StatusPage {
    let health = Arc::new(Health::new(bed.appliance.shared().workers.len()));
    StatusPage::new(bed.appliance.clone(), health)
}

/// What stands between the tags of the element `id`.
fn shown<'a>(html: &'a str, id: &str) -> &'a str {
    let (_, rest) = html.split_once(&format!("id=\"{id}\"")).unwrap();
    let (_, rest) = rest.split_once('>').unwrap();
    rest.split('<').next().unwrap()
}

#[test]
fn the_page_shows_what_stats_says() {
    let bed = Bed::new(2);
    let page = page(&bed);
    (0..5).for_each(|host| bed.send(host));
    bed.answer(9, 7, 0);
    page.look();
    let status = page.last.lock().clone();
    assert_eq!(status.stats.packets, bed.appliance.stats().packets);
    assert_eq!(status.drops, bed.appliance.drops());
    assert_eq!(status.ports, bed.appliance.ports());
    assert_eq!((status.health.as_str(), status.history.len()), ("ok", 2));
    let html = page::render(&status, PACE);
    for (id, count) in [
        ("entries", "5"),
        ("insert", "5"),
        ("forwarded", "5"),
        ("dropped", "1"),
    ] {
        assert_eq!(shown(&html, id), count, "{id}: {html}");
    }
    assert_eq!(shown(&html, "health"), "ok");
    assert!(
        html.contains("<td>policy</td><td class=\"number\">1</td>"),
        "{html}"
    );
    assert!(
        !html.contains("<script") && !html.contains("style="),
        "{html}"
    );
}

#[test]
fn five_minutes_are_kept() {
    let bed = Bed::without_workers(1);
    let page = page(&bed);
    (0..KEPT + 7).for_each(|_| page.look());
    assert_eq!(page.last.lock().history.len(), KEPT);
}

#[test]
fn names_are_no_markup_and_counts_that_fall_no_rate() {
    let bed = Bed::without_workers(1);
    let page = page(&bed);
    page.look();
    let mut status = Status::clone(&page.last.lock());
    status.ports[0].port.name = "<b>\"&'".into();
    status.history[0].forwarded = 10;
    status.health = "worker 0 is stuck".into();
    let html = page::render(&status, PACE);
    assert!(
        html.contains("<td>&lt;b&gt;&quot;&amp;&#39;</td>"),
        "{html}"
    );
    assert!(html.contains("packets forwarded, 0 a second"), "{html}");
    assert!(html.contains("class=\"bad\">worker 0 is stuck"), "{html}");
}
