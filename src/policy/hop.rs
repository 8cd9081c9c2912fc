//! How often a message may go through a gateway (`reliability.md` S14).
//!
//! Every delivery says in [`HEADER`] which hop of the message it is, 1 for one that a producer sent
//! in. A receiver that passes messages on to a gateway, this or another one, passes the header on as
//! well; so whatever goes in circles ends after [`MAX`] hops instead of never.

/// The header, in lower case.
pub const HEADER: &str = "webhook-hops";
/// Hops of one message at most. What has made them all is not accepted again.
pub const MAX: u8 = 3;

/// Why the header of a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHops {
    /// More than one header: which of them counts is anybody's guess.
    #[error("`{HEADER}` must be there once at most")]
    Twice,
    /// No number.
    #[error("`{HEADER}` must be a number of 1 to 9 digits, as the delivery carried it")]
    Garbage,
    /// The message has made all hops it may.
    #[error("this message has made {0} hops, and {MAX} are allowed: it goes in circles")]
    TooMany(u32),
}

/// Hops that a message has behind it, from the values of [`HEADER`] in the request that brings it;
/// below [`MAX`]. No header means 0: its producer made it.
pub fn read<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Result<u8, BadHops> {
    let Some(value) = values.next() else {
        return Ok(0);
    };
    if values.next().is_some() {
        return Err(BadHops::Twice);
    }
    let is_number = (1..=9).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| is_number);
    let made: u32 = text
        .and_then(|text| text.parse().ok())
        .ok_or(BadHops::Garbage)?;
    match u8::try_from(made) {
        Ok(hops) if hops < MAX => Ok(hops),
        Ok(_) | Err(_) => Err(BadHops::TooMany(made)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[&str]) -> Result<u8, BadHops> {
        read(values.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn a_message_may_make_three_hops() {
        assert_eq!(of(&[]), Ok(0));
        assert_eq!(of(&["0"]), Ok(0));
        assert_eq!(of(&["1"]), Ok(1));
        assert_eq!(of(&["2"]), Ok(2));
        assert_eq!(of(&["002"]), Ok(2));
        assert_eq!(of(&["3"]), Err(BadHops::TooMany(3)));
        assert_eq!(of(&["256"]), Err(BadHops::TooMany(256)));
        assert_eq!(of(&["999999999"]), Err(BadHops::TooMany(999_999_999)));
    }

    #[test]
    fn what_is_no_single_number_is_refused() {
        for garbage in [
            "",
            " ",
            "-1",
            "+1",
            "1.0",
            "1, 1",
            "0x1",
            "one",
            "१",
            "1000000000",
        ] {
            assert_eq!(of(&[garbage]), Err(BadHops::Garbage), "{garbage:?}");
        }
        assert_eq!(of(&["1", "1"]), Err(BadHops::Twice));
        assert_eq!(of(&["1", "x"]), Err(BadHops::Twice));
    }

    proptest! {
        #[test]
        fn no_bytes_pass_but_the_numbers_below_the_limit(value: Vec<u8>) {
            if let Ok(hops) = read(std::iter::once(value.as_slice())) {
                prop_assert!(hops < MAX && value.iter().all(u8::is_ascii_digit));
            }
        }
    }
}
