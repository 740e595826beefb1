// The blind comparison: one trial after the other, kept at every answer.

const study = JSON.parse(at("data").textContent);
const place = `gvcc-ab-${study.experiment}`;
const clips = ["original", "first", "second"].map((id) => at(id).querySelector("video"));
const sync = new Sync(clips, () => {});
let session = null;
let since = null; // when the trial's clips began to run; null while none may be chosen

function kept() {
  try {
    return JSON.parse(localStorage.getItem(place));
  } catch {
    return null; // storage is switched off, or holds something else
  }
}

function keep() {
  try {
    localStorage.setItem(place, JSON.stringify(session));
  } catch { /* then this session cannot be resumed; its answers are still saved at the end */ }
}

function screen(id) {
  for (const other of ["start", "resume", "trial", "done", "problem"]) at(other).hidden = other !== id;
  const head = at(id).querySelector("h1[tabindex]");
  if (head) head.focus();
}

const left = () => {
  const done = new Set(session.answers.map((a) => a.trial));
  return session.order.map((id) => study.trials.find((t) => t.id === id)).filter((t) => !done.has(t.id));
};

/** In an order of this viewer's own, so that no clip is always the first or the last. */
function shuffled(list) {
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [list[i], list[j]] = [list[j], list[i]];
  }
  return list;
}

function begin(event) {
  event.preventDefault();
  const id = at("participant").value.trim();
  if (!id) return;
  session = { format: study.format, experiment: study.experiment, participant: id, started: new Date().toISOString(),
    user_agent: navigator.userAgent, order: shuffled(study.trials.map((t) => t.id)), answers: [] };
  keep();
  next();
}

async function next() {
  const [trial] = left();
  since = null;
  if (!trial) return finish();
  screen("trial");
  at("trial").classList.add("wait");
  for (const button of at("trial").querySelectorAll("button")) button.disabled = true;
  const done = study.trials.length - left().length;
  at("where").textContent = `${done + 1} of ${study.trials.length}`;
  Object.assign(at("progress"), { value: done, max: study.trials.length });
  sync.at = 0;
  try {
    await sync.load([trial.original, trial.first, trial.second].map((id) => videoUrl(id)), trial.hz || 25, trial.frames);
  } catch (error) {
    at("problem").textContent = `${error.message}; please use another browser. Your answers so far are kept.`;
    return screen("problem");
  }
  sync.play();
  at("trial").classList.remove("wait");
  for (const button of at("trial").querySelectorAll("button")) button.disabled = false;
  since = performance.now();
}

function answer(choice) {
  if (since === null) return; // nothing to see yet
  session.answers.push({ trial: left()[0].id, choice, response_s: Math.round(performance.now() - since) / 1000,
    answered: new Date().toISOString() });
  keep();
  next();
}

function finish() {
  sync.stop();
  session.finished ||= new Date().toISOString();
  keep();
  screen("done");
  save();
}

function save() {
  const name = `ab-answers-${session.participant.replace(/[^\p{L}\p{N}-]+/gu, "_")}.json`;
  const url = URL.createObjectURL(new Blob([JSON.stringify(session, null, 1)], { type: "application/json" }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
  at("file").textContent = name;
}

function welcome() {
  const n = study.trials.length;
  at("count").textContent = `There ${n === 1 ? "is 1 comparison" : `are ${n} comparisons`}.`;
  at("participant").value = "";
  screen("start");
}

at("form").addEventListener("submit", begin);
at("go-on").addEventListener("click", next);
for (const id of ["anew", "next-person"]) at(id).addEventListener("click", welcome);
at("save").addEventListener("click", save);
for (const button of document.querySelectorAll("[data-choice]"))
  button.addEventListener("click", () => answer(Number(button.dataset.choice)));
document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || at("trial").hidden) return;
  if (event.key === "1" || event.key === "2") answer(Number(event.key));
});

session = kept();
if (session && session.answers) {
  at("resume-text").textContent = `${session.participant} has answered ${session.answers.length} of ${study.trials.length}.`;
  screen("resume");
} else welcome();
