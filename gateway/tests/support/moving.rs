//! A workspace that moves from one server to another, in two steps.

use postgres::GenericClient;
use sync_ext_harness::device::call;
use sync_ext_harness::moves::{Ended, Mover, Step};

use super::fleet::{NAMES, Site};

pub struct Moving {
    workspace: String,
    from: usize,
    to: usize,
    id: String,
}

/// The servers own the buckets that the map gives them.
pub fn own_buckets(site: &mut Site) {
    for (server, admin) in site.admins.iter_mut().enumerate() {
        let own = "select sync_own_buckets(array(select b from generate_series(0, 1023) as b
                                                 where b % 3 = $1)),
                          sync_set_key_range($1 + 1)";
        admin.execute(own, &[&(server as i32)]).unwrap();
    }
}

impl Moving {
    /// Everything up to the departure: no server has the workspace now.
    pub fn depart(site: &mut Site, workspace: &str, from: usize, to: usize) -> Moving {
        let moving = Moving::begin(site, workspace, from, to);
        moving.run(site, Step::Arrive);
        moving
    }

    /// The other server has what there is, and the first one goes on.
    pub fn begin(site: &mut Site, workspace: &str, from: usize, to: usize) -> Moving {
        let id = call(&mut site.router, "select gen_random_uuid()::text", &[]).unwrap();
        let moving = Moving { workspace: workspace.to_owned(), from, to, id };
        moving.run(site, Step::Hold);
        moving
    }

    /// Pushes wait from here on.
    pub fn hold(&self, session: &mut impl GenericClient) {
        let hold = "select sync_export_hold($1, $2::text::uuid, 60)";
        session.execute(hold, &[&self.workspace, &self.id]).unwrap();
    }

    /// The other server has it now, as the map says. Whether the gateway knows is its affair.
    pub fn arrive(self, site: &mut Site) {
        self.run(site, Step::Map);
        site.place(&self.workspace, self.to);
        self.mover().forget(&mut site.admins[self.from]).unwrap();
    }

    /// Up to this step.
    fn run(&self, site: &mut Site, end: Step) {
        let [from, to] = site.admins.get_disjoint_mut([self.from, self.to]).unwrap();
        let ended = self.mover().run(from, to, |step| step != end).unwrap();
        assert_eq!(ended, Ended::Killed(end));
    }

    fn mover(&self) -> Mover<'_> {
        Mover { workspace_id: &self.workspace, move_id: &self.id, to: NAMES[self.to] }
    }
}
