//! Events in the bytes that come from the guest's event port.

use wire::event::{EVENT_BYTES, Event};

/// Finds events in a stream of bytes. Whatever is no event is skipped, byte by byte, until one begins again.
#[derive(Default)]
pub struct EventStream {
    bytes: Vec<u8>,
}

impl EventStream {
    /// Takes on more bytes; the events that are complete now.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.bytes.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut rest = self.bytes.as_slice();
        while let Some((candidate, after)) = rest.split_first_chunk::<EVENT_BYTES>() {
            match Event::decode(candidate) {
                Some(event) => {
                    events.push(event);
                    rest = after;
                }
                None => rest = &rest[1..],
            }
        }
        self.bytes = rest.to_vec();
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> [Event; 3] {
        [Event::Started {}, Event::WeightsProgress { percent: 40 }, Event::Listening { port: 443 }]
    }

    fn stream() -> Vec<u8> {
        events().iter().flat_map(|event| event.encode()).collect()
    }

    #[test]
    fn events_come_in_pieces_of_any_size() {
        for size in 1..=stream().len() {
            let mut decoder = EventStream::default();
            let decoded: Vec<Event> = stream().chunks(size).flat_map(|piece| decoder.push(piece)).collect();
            assert_eq!(decoded, events(), "pieces of {size}");
        }
    }

    #[test]
    fn foreign_bytes_before_and_between_events_are_skipped() {
        let [first, second, third] = events().map(Event::encode);
        let bytes = [&b"SeaBIOS"[..], &first, &[0xc1], &second, &[0xc1, 1, 0xff, 0xff], &third].concat();
        assert_eq!(EventStream::default().push(&bytes), events());
    }

    #[test]
    fn a_lost_byte_costs_one_event() {
        for position in 0..2 * EVENT_BYTES {
            let mut bytes = stream();
            bytes.remove(position);
            assert_eq!(EventStream::default().push(&bytes).len(), events().len() - 1, "{position}");
        }
    }

    #[test]
    fn a17_a_stream_without_events_takes_no_memory() {
        let mut decoder = EventStream::default();
        for _ in 0..1000 {
            assert!(decoder.push(&[0; 4096]).is_empty());
            assert!(decoder.bytes.len() < EVENT_BYTES);
        }
    }
}
