//! Server-sent events as a client reads them: the stream of an HTTP answer, cut into events, with a bound.
//!
//! Source: the HTML standard, "Server-sent events"; MCP, Streamable HTTP.

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The last `id` so far, if one came.
    pub id: Option<String>,
    /// What `data` lines say, joined by line breaks; empty where there was none.
    pub data: String,
    /// Milliseconds of a `retry` line in this event.
    pub retry_ms: Option<u64>,
}

/// An event that is longer than may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an event of at most {bytes_max} bytes")]
pub struct EventTooLong {
    /// The bound.
    pub bytes_max: usize,
}

/// The events of one stream.
#[derive(Clone, Debug)]
pub struct Events {
    bytes_max: usize,
    line: Vec<u8>,
    is_after_cr: bool,
    has_begun: bool,
    event: Event,
    has_data: bool,
}

impl Events {
    /// No bytes yet; events of up to `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        let event = Event::default();
        Events { bytes_max, line: Vec::new(), is_after_cr: false, has_begun: false, event, has_data: false }
    }

    /// Takes the next bytes; `each` gets the events that end in them, those without data too where they say anything else.
    ///
    /// # Errors
    /// [`EventTooLong`]; the stream is of no use any more.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Event)) -> Result<(), EventTooLong> {
        for byte in bytes {
            match byte {
                b'\n' if std::mem::take(&mut self.is_after_cr) => {}
                b'\n' | b'\r' => {
                    self.is_after_cr = *byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    self.take_line(&line, &mut each);
                    self.line = line;
                    self.line.clear();
                }
                _ => {
                    self.is_after_cr = false;
                    self.line.push(*byte);
                    if self.line.len() + self.event.data.len() > self.bytes_max {
                        return Err(EventTooLong { bytes_max: self.bytes_max });
                    }
                }
            }
        }
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], each: &mut impl FnMut(Event)) {
        let line = String::from_utf8_lossy(line);
        let line =
            if std::mem::replace(&mut self.has_begun, true) { &*line } else { line.trim_start_matches('\u{feff}') };
        if line.is_empty() {
            let id = self.event.id.clone();
            let event = std::mem::replace(&mut self.event, Event { id, ..Event::default() });
            if std::mem::take(&mut self.has_data) || event.retry_ms.is_some() {
                each(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            "id" if !value.contains('\0') => self.event.id = Some(value.to_owned()),
            "retry" => self.event.retry_ms = value.parse().ok().or(self.event.retry_ms),
            // Comments, names of events, and what is not known.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(parts: &[&str]) -> Vec<Event> {
        let mut events = Events::new(100);
        let mut found = Vec::new();
        for part in parts {
            events.push(part.as_bytes(), |event| found.push(event)).expect("short");
        }
        found
    }

    fn event(id: Option<&str>, data: &str) -> Event {
        Event { id: id.map(ToOwned::to_owned), data: data.to_owned(), retry_ms: None }
    }

    #[test]
    fn events_are_told_however_they_come() {
        let text = "\u{feff}: hello\nid: 1\nevent: message\ndata: {\"a\":\ndata:1}\n\n\r\ndata: b\r\n\r\ndata\n\nid: 2\n\ndata:c\r\rdata: never ended";
        let expected =
            [event(Some("1"), "{\"a\":\n1}"), event(Some("1"), "b"), event(Some("1"), ""), event(Some("2"), "c")];

        assert_eq!(events(&[text]), expected);
        let each: Vec<String> = text.chars().map(String::from).collect();
        assert_eq!(events(&each.iter().map(String::as_str).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn how_long_to_wait_is_told_without_data() {
        assert_eq!(events(&["id: 7\nretry: 500\ndata: \n\n"])[0].retry_ms, Some(500));
        assert_eq!(events(&["retry: 5\n\n"]), [Event { retry_ms: Some(5), ..Event::default() }]);
        assert_eq!(events(&["retry: soon\n\n"]), []);
    }

    #[test]
    fn an_event_too_long_is_an_error() {
        let mut events = Events::new(10);

        assert!(events.push(b"data: 123\n", |_| {}).is_ok());
        assert_eq!(events.push(b"data: 1234567", |_| {}), Err(EventTooLong { bytes_max: 10 }));
    }
}
