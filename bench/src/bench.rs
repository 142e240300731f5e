//! What every scenario gets: a gateway, the raw platforms, and how much to measure.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::client;
use crate::docker::{self, Docker};
use crate::gateway::{Gateway, Staged};
use crate::janitor::Janitor;
use crate::options::{Options, Peer, Sizes};
use crate::raw::{self, Helper};

#[derive(Debug)]
pub(crate) struct Bench {
    // Fields are dropped from above to below: the janitor looks last, and removes the directory.
    pub(crate) docker: Result<Docker, String>,
    pub(crate) helper: Helper,
    pub(crate) gateway: Gateway,
    pub(crate) bwrap: Result<PathBuf, String>,
    pub(crate) staged: Staged,
    pub(crate) sizes: Sizes,
    pub(crate) cpus: u64,
    work: PathBuf,
    janitor: Janitor,
}

impl Bench {
    pub(crate) async fn start(options: &Options) -> Result<Self> {
        // A short path: the sockets below it have a limit of 108 bytes.
        let work = tempfile::Builder::new()
            .prefix("cfd-bench-")
            .tempdir()
            .context("make a directory to work in")?
            .keep();
        // From here on the directory is the janitor's to remove.
        let janitor = Janitor::start(&work, options.xtask.as_deref())?;
        let staged = Staged::copy(&options.bin, &options.libexec, &work.join("own"))?;
        let gateway = Gateway::start(&staged, &work.join("gw")).await?;
        let docker = if options.skip.contains(&Peer::Docker) {
            Err("as asked".to_owned())
        } else {
            docker::start(options.xtask.as_deref(), &work).map_err(|reason| format!("{reason:#}"))
        };
        let bwrap = if options.skip.contains(&Peer::Bwrap) {
            Err("as asked".to_owned())
        } else {
            raw::find("bwrap").ok_or_else(|| "bwrap is not installed".to_owned())
        };
        Ok(Self {
            docker,
            helper: Helper::start()?,
            gateway,
            bwrap,
            staged,
            sizes: options.sizes(),
            cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
            work,
            janitor,
        })
    }

    /// A directory of its own for something that a scenario starts.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// The CLI, pointed at the gateway.
    pub(crate) fn cli(&self, words: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(&self.staged.cli);
        command
            .env("COFFERDAM_GATEWAY", &self.gateway.socket)
            .env("COFFERDAM_LIBEXEC", &self.staged.libexec)
            .args(words);
        command
    }

    /// The CLI's command line, for a shell.
    pub(crate) fn cli_line(&self, words: &str) -> String {
        let (cli, socket) = (self.staged.cli.display(), self.gateway.socket.display());
        format!("{cli} --gateway {socket} {words}")
    }

    /// Stops everything, in order. What is found running afterwards is ended and reported.
    pub(crate) async fn finish(self) -> Result<()> {
        let Self {
            docker,
            helper,
            gateway,
            staged,
            janitor,
            ..
        } = self;
        drop((docker, helper));
        let emptied = client::delete_all(&mut gateway.connect()).await;
        let stopped = gateway.stop().await;
        let left = staged.sweep();
        let inspected = janitor.inspect();
        emptied?;
        stopped?;
        anyhow::ensure!(
            left == 0,
            "{left} processes were still running and were killed"
        );
        inspected
    }
}
