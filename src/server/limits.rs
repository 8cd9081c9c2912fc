//! Open files: the soft limit is raised to the hard one, and compared with what the limits need.
//!
//! Many shells start with a soft limit of 1024 for the sake of `select(2)`, which nothing here uses.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Error;

/// Raises the soft limit of open files to the hard limit, and answers what is granted then.
///
/// # Errors
/// Fewer than `need` are granted. Better now than in the middle of the night.
pub fn open_files(need: u64) -> Result<u64, Error> {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    // Refused in some sandboxes; then the limit stays and is judged as it is.
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => before.maximum,
        Err(_) => before.current,
    };
    let granted = limit.unwrap_or(u64::MAX); // none = unlimited
    if granted < need {
        return Err(Error::OpenFiles { need, granted });
    }
    Ok(granted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_budget_beyond_the_hard_limit() {
        let granted = open_files(1).expect("one file is granted anywhere");
        assert!(granted >= 1);
        if let Some(more) = granted.checked_add(1) {
            assert!(matches!(
                open_files(more),
                Err(Error::OpenFiles { granted: g, .. }) if g == granted
            ));
        }
    }
}
