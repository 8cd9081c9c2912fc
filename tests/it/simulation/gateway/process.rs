//! One life of the gateway: everything the composition root builds, without sockets, threads and
//! fsync. The lane's rounds, recovery and attempts take virtual time; the process can be killed at
//! any await point of its tasks.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use posthaste::api::{self, ApiState, Front};
use posthaste::auth::{self, Auth, Entropy};
use posthaste::base::task::{self, Stopper};
use posthaste::base::{ByteSize, Clock};
use posthaste::config::Config;
use posthaste::deliver::{self, Defaults, Deliver, Prepared};
use posthaste::directory::Directory;
use posthaste::inbound::{self, Inbound};
use posthaste::ingest::{self, Ingest};
use posthaste::lane::{Lane, Options, Rounds};
use posthaste::model::{Delivery, EndpointNo, FailureKind};
use posthaste::policy::outcome;
use posthaste::policy::own::Own;
use posthaste::policy::target::TargetRules;
use posthaste::providers::Catalogue;
use posthaste::schedule::core::{Core, Input, Job, Settings};
use posthaste::schedule::{self, Announcer, Attempts, Driver, Exchange, Inbox, Recovery, Status};
use posthaste::store::Reader;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::net::FakeNet;
use super::world::World;

pub(crate) const ADMIN: &str = "an-operator-key-of-more-than-32-characters";

/// A running gateway.
pub(crate) struct Process {
    pub(crate) front: Front,
    pub(crate) state: Arc<ApiState>,
    pub(crate) lane: Lane,
    pub(crate) directory: Arc<Directory>,
    pub(crate) reader: Arc<dyn Reader>,
    pub(crate) schedule: schedule::Handle,
    pub(crate) stopper: Stopper,
    /// Fires when the scheduler has ended.
    pub(crate) ended: oneshot::Receiver<()>,
    /// Fires when the process was killed between two polls.
    pub(crate) killed: Arc<Notify>,
}

/// Looks endpoints up and makes attempts, as the composition root's `Outgoing` does.
struct Outgoing {
    deliver: Deliver<FakeNet>,
    defaults: Defaults,
    directory: Arc<Directory>,
}

impl Outgoing {
    fn find(&self, no: EndpointNo) -> Option<Arc<Prepared>> {
        let snapshot = self.directory.peek();
        let endpoint = snapshot.endpoint(no)?;
        let prepared = Prepared::new(endpoint, "org", &self.defaults).unwrap();
        endpoint.deleted.is_none().then(|| Arc::new(prepared))
    }
}

impl Attempts for Outgoing {
    async fn attempt(&self, job: Job) -> Exchange {
        let Some(endpoint) = self.find(job.endpoint) else {
            return Exchange {
                outcome: outcome::of_failure(FailureKind::BlockedAddress),
                response: bytes::Bytes::new(),
                duration_ms: 0,
                resolver_down: false,
            };
        };
        let job = deliver::Job {
            marked: None,
            delivery: Delivery {
                at: job.message.at,
                endpoint: job.endpoint,
            },
            endpoint,
            message: job.message,
            no: job.no,
            total: job.total,
        };
        let finished = self.deliver.attempt(&job).await;
        Exchange {
            outcome: finished.outcome,
            response: finished.response,
            duration_ms: finished.duration_ms,
            resolver_down: finished.resolver_down,
        }
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.ingest.queue = 12;
    config.ingest.queue_bytes = ByteSize::kib(64);
    config.ingest.max_group = 5;
    config.delivery.retry_schedule = [1, 3, 8, 20].map(Duration::from_secs).to_vec();
    config.delivery.max_in_flight = 12;
    config.delivery.max_in_memory = 60;
    config
}

impl Process {
    #[expect(clippy::too_many_lines, reason = "puts the whole gateway together")]
    pub(crate) async fn start(world: &Arc<World>) -> Self {
        let config = config();
        let killed = Arc::new(Notify::new());
        let clock: Arc<dyn Clock> = world.clock.clone();
        let (writer, reader) = world.model.open();
        let (committed_to, committed) = mpsc::channel(4096);
        let options = Options {
            queue: config.ingest.queue,
            queue_bytes: config.ingest.queue_bytes.get(),
            max_group: config.ingest.max_group,
        };
        let (lane, rounds) =
            Lane::by_hand(Box::new(writer), Arc::clone(&clock), options, committed_to);
        let (changed_to, changed) = mpsc::channel(64);
        let directory = Directory::load(
            reader.as_ref(),
            lane.clone(),
            changed_to,
            crate::kit::vault(),
        )
        .unwrap();
        let directory = Arc::new(directory);
        let outgoing = outgoing(world, &config, &directory, &clock);
        let (announcer, teller) =
            Announcer::new(lane.clone(), Arc::clone(&directory), Arc::clone(&clock));
        mortal(world, &killed, teller.run());
        mortal(world, &killed, commit(Arc::clone(world), rounds));

        let mut core = Core::new(Settings {
            max_in_flight: config.delivery.max_in_flight,
            max_in_memory: config.delivery.max_in_memory,
            max_queue: 20,
            ..Settings::default()
        });
        let recovery = schedule::begin(
            &mut core,
            clock.now(),
            &reader,
            &directory,
            &config.delivery,
        );
        let recovered = recover(world, recovery.unwrap());
        let (status_to, status) = watch::channel(Status::default());
        let (requests_to, requests) = mpsc::channel(256);
        let parts = schedule::Parts {
            attempts: outgoing,
            lane: lane.clone(),
            reader: Arc::clone(&reader),
            directory: Arc::clone(&directory),
            clock: Arc::clone(&clock),
            config: Arc::new(config.delivery.clone()),
            random: ChaCha8Rng::seed_from_u64(world.roll(0..u64::MAX)),
            announcer,
        };
        let inbox = Inbox {
            committed,
            changed,
            requests,
            recovered,
        };
        let (stopper, stop) = Stopper::new();
        let driver = Driver::new(core, parts, inbox, status_to).run(stop);
        let (ended_to, ended) = oneshot::channel();
        mortal(world, &killed, async move {
            driver.await;
            task::answer(ended_to, ());
        });
        let schedule = schedule::Handle::new(
            requests_to,
            status,
            Arc::clone(&reader),
            Arc::clone(&directory),
        );
        let parts = (config, clock, lane.clone(), Arc::clone(&reader));
        let state = state(world, parts, &directory, &schedule);
        Self {
            front: api::front(Arc::clone(&state)),
            state,
            lane,
            directory,
            reader,
            schedule,
            stopper,
            ended,
            killed,
        }
    }
}

/// Runs a task of the engine until the process is killed, which can be between any two polls.
fn mortal(
    world: &Arc<World>,
    killed: &Arc<Notify>,
    future: impl Future<Output = ()> + Send + 'static,
) {
    let (world, killed) = (Arc::clone(world), Arc::clone(killed));
    task::detach(async move {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let left = world.polls_left.fetch_sub(1, Ordering::SeqCst);
            if left == 0 {
                world.dead.store(true, Ordering::SeqCst);
                killed.notify_one();
            }
            if world.is_dead() {
                return Poll::Pending;
            }
            future.as_mut().poll(cx)
        })
        .await;
    });
}

/// The commit thread's rounds: as fast as a disk, and now and then as slow as a bad one.
async fn commit(world: Arc<World>, mut rounds: Rounds) {
    loop {
        let wait = match world.roll(0..1000) {
            0 => {
                world.saw("a commit that stalled");
                world.roll(200..3000)
            }
            1..=400 => world.roll(0..4),
            _ => world.roll(4..25),
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        if !rounds.turn() {
            break;
        }
    }
}

/// Reads what was open, and hands it over in virtual time.
fn recover(world: &Arc<World>, recovery: Recovery) -> mpsc::Receiver<Input> {
    let (all_to, mut all) = mpsc::channel(4096);
    // On a thread of its own, since it blocks, and waited for on the spot: no time passes.
    std::thread::scope(|scope| scope.spawn(|| recovery.run(&all_to).unwrap()).join()).unwrap();
    drop(all_to);
    let (recovered_to, recovered) = mpsc::channel(4);
    let world = Arc::clone(world);
    task::detach(async move {
        while let Some(input) = all.recv().await {
            if let Input::Recovered { open, .. } = &input
                && !open.is_empty()
            {
                world.saw("a recovery that found open deliveries");
            }
            let wait = world.roll(0..300);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            if recovered_to.send(input).await.is_err() {
                break;
            }
        }
    });
    recovered
}

fn outgoing(
    world: &Arc<World>,
    config: &Config,
    directory: &Arc<Directory>,
    clock: &Arc<dyn Clock>,
) -> Arc<Outgoing> {
    Arc::new(Outgoing {
        deliver: Deliver::new(FakeNet(Arc::clone(world)), Arc::clone(clock)),
        defaults: Defaults::of(&config.delivery, Own::default()).unwrap(),
        directory: Arc::clone(directory),
    })
}

fn state(
    world: &World,
    (config, clock, lane, reader): (Config, Arc<dyn Clock>, Lane, Arc<dyn Reader>),
    directory: &Arc<Directory>,
    schedule: &schedule::Handle,
) -> Arc<ApiState> {
    let mut seed = [0; 32];
    seed.fill_with(|| world.roll(0..=u8::MAX));
    let entropy = Arc::new(Entropy::from_seed(seed));
    let ingest = Arc::new(Ingest::new(ingest::Parts {
        config: config.ingest.clone(),
        remember_for: config.retention.idempotency,
        directory: Arc::clone(directory),
        lane: lane.clone(),
        reader: Arc::clone(&reader),
        clock: Arc::clone(&clock),
        entropy: Arc::clone(&entropy),
    }));
    let inbound = Inbound::new(inbound::Parts {
        config: config.inbound.clone(),
        ids_kept: config.retention.messages,
        base: None,
        trusted: Vec::new(),
        catalogue: Arc::new(Catalogue::builtin().unwrap()),
        directory: Arc::clone(directory),
        ingest: Arc::clone(&ingest),
        clock: Arc::clone(&clock),
        news: None,
        keys: Arc::new(crate::api::kit::KeySet::default()),
    });
    Arc::new(ApiState::new(api::Parts {
        auth: Auth::new(Arc::clone(directory), Some(auth::hash(ADMIN))),
        ingest,
        inbound,
        directory: Arc::clone(directory),
        lane,
        reader,
        schedule: schedule.clone(),
        clock,
        entropy,
        backups: None,
        delivery: config.delivery,
        retention: config.retention,
        targets: TargetRules::default(),
        catalogs: Arc::default(),
        handshake: None,
        reserve: 0,
        elsewhere: None,
        metrics: Box::new(|| String::from("# metrics\n")),
    }))
}
