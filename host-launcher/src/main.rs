//! `cloister-launch`: boots an image under QEMU and stays with it.
#![forbid(unsafe_code)]

mod args;

use args::{Args, Command, Platform, Run};
use clap::{CommandFactory, Parser, error::ErrorKind};
use host_launcher::development::{Development, Launch};
use host_launcher::failure::Failure;
use host_launcher::host::{Qemu, SnpHost, listen_address};
use host_launcher::hostile;
use host_launcher::image::Image;
use host_launcher::machine::{Arguments, Machine, QEMU};
use host_launcher::report::Report;
use host_launcher::supervise::{self, Happening};
use image_builder::freestanding::{self, Program};
use snp_model::hostile::Lie;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::{env, fs, io};

fn main() -> ExitCode {
    if args::asks_for_lies(&env::args().collect::<Vec<_>>()) {
        print!("{}", hostile::list());
        return ExitCode::SUCCESS;
    }
    let Command::Run(options) = Args::parse().command;
    let model_only = [
        ("--hostile", options.hostile.is_some()),
        ("--icount", options.icount),
        ("--lenient", options.lenient),
        ("--snp-model", options.snp_model.is_some()),
    ];
    if let (Platform::Snp, Some((option, _))) =
        (options.platform, model_only.iter().find(|(_, given)| *given))
    {
        let problem = format!("{option} is for --platform model: real hardware does not take it");
        Args::command().error(ErrorKind::ArgumentConflict, problem).exit();
    }
    match run(&options) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("cloister-launch: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(options: &Run) -> Result<ExitCode, Failure> {
    let image = Image::open(&options.image, &options.weights)?;
    let memory_mib = image.memory_mib(options.memory)?;
    let vcpus = image.vcpus(options.vcpus)?;
    let listen = listen_address(options.listen)?;
    let machine = Machine {
        manifest: &image.manifest,
        weights: &image.weights,
        listen,
        memory_mib,
        vcpus,
        cpu: options.cpu_type,
        counted: options.icount,
        qmp: options.qmp.as_deref(),
    };
    if options.print_command {
        let arguments = match options.platform {
            Platform::Snp => machine.on_snp(&image.path, image.is_igvm),
            Platform::Model => machine.on_model(Path::new("snp-model"), Path::new("launch-bundle")),
        };
        println!("{}", arguments.to_shell(QEMU));
        return Ok(ExitCode::SUCCESS);
    }

    let open_report = || {
        Report::new(options.json, options.events.as_deref(), listen)
            .map_err(|source| Failure::Write { path: options.events.clone().unwrap_or_default(), source })
    };
    match options.platform {
        Platform::Snp => {
            SnpHost::look(image.is_igvm).check()?;
            supervise(&machine.on_snp(&image.path, image.is_igvm), open_report()?, None)
        }
        Platform::Model => {
            Qemu::find()?;
            let development = Development::open(options.state.as_deref(), options.cpu_type)?;
            let model = match &options.snp_model {
                Some(file) => file.clone(),
                None => freestanding::build(Program::SnpModel)?,
            };
            let proof = options.proof.as_ref().map(|path| {
                fs::read(path).map_err(|source| Failure::Read { what: "proof", path: path.clone(), source })
            });
            let proof = proof.transpose()?;
            let launch = Launch {
                image: &image.bytes,
                memory_mib,
                vcpus,
                cpu: options.cpu_type,
                scenario: options.hostile.map_or("", Lie::name),
                strict: !options.lenient,
                proof: proof.as_deref(),
            };
            let bundle = BundleFile::write(&development.bundle(&launch)?)?;
            let mut report = open_report()?;
            report.note("platform", "SNP model, which protects nothing");
            report.note("development root", &development.root_pem().display().to_string());
            let mut arguments = machine.on_model(&model, bundle.path());
            if let Some(lie) = options.hostile {
                report.note("hostile host", lie.about());
                hostile::arrange(lie, &mut arguments, &model);
            }
            supervise(&arguments, report, Some(bundle))
        }
    }
}

/// The launch bundle on disk until QEMU has read it. It holds the development VCEK's key.
struct BundleFile(tempfile::NamedTempFile);

impl BundleFile {
    fn write(bytes: &[u8]) -> Result<Self, Failure> {
        let folder = env::temp_dir();
        let failed = |source| Failure::Write { path: folder.clone(), source };
        let file = tempfile::Builder::new().prefix("cloister-launch-").tempfile().map_err(failed)?;
        fs::write(file.path(), bytes).map_err(failed)?;
        Ok(Self(file))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

fn supervise(
    arguments: &Arguments,
    mut report: Report,
    mut bundle: Option<BundleFile>,
) -> Result<ExitCode, Failure> {
    let (sender, happenings) = mpsc::channel();
    let stop = sender.clone();
    let handled = ctrlc::set_handler(move || {
        // Nobody listens only when QEMU has ended already.
        let _ = stop.send(Happening::Stop);
    });
    handled.map_err(|error| Failure::Signals(io::Error::other(error)))?;
    let ending = supervise::run(arguments, &sender, &happenings, |happening| {
        report.tell(happening);
        // Whoever says anything has been started, so QEMU has read all of its files.
        if matches!(happening, Happening::ModelLine(_) | Happening::Event(_)) {
            bundle = None;
        }
    })?;
    report.end(&ending);
    Ok(ExitCode::from(ending.exit_code()))
}
