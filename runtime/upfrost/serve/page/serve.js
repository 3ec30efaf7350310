"use strict";
// The page of `upfrost serve`: files in, jobs watched, results compared.

const by = (id) => document.getElementById(id);
const zooms = [1, 2, 4];
let models = [], limit = Infinity, chosen = [], tag = null, known = new Map();
let rates = "", sending = 0, trouble = "", complaint = "";

const say = (text) => { by("said").textContent = text; };
const kindOf = (file) => (file.type.startsWith("video/") ? "video" : "picture");
const bytes = (count) => count < 1e6 ? `${Math.max(1, Math.round(count / 1e3))} kB`
  : count < 1e9 ? `${(count / 1e6).toFixed(1)} MB` : `${(count / 1e9).toFixed(2)} GB`;

function duration(seconds) {
  if (seconds < 1) return "a moment";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

async function ask(address, options) {
  const answer = await fetch(address, options);
  if (answer.ok || answer.status === 304) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Error(told.error ?? `the server answered ${answer.status}`);
}

function showProblem() {
  const text = [trouble, complaint].filter(Boolean).join(" ");
  by("problem").hidden = !text;
  if (by("problem").textContent !== text) by("problem").textContent = text;
}

// What is amiss with the server, as long as it is.
function problem(text) { trouble = text; showProblem(); }

// What is amiss with what the user did last.
function complain(text) { complaint = text; showProblem(); }

// Choosing

async function learnModels() {
  const told = await (await ask("/api/models")).json();
  models = told.models;
  limit = told.upload_bytes;
  by("device").textContent = told.device ?? "";
  problem(told.problem ?? "");
  const heard = JSON.stringify(models);
  if (heard !== rates) showChoices();
  rates = heard;
}

function showChoices() {
  for (const kind of ["picture", "video"]) {
    const place = by(`${kind}s`).querySelector(".choices");
    const checked = place.querySelector(":checked")?.value;
    const focused = document.activeElement?.value;
    place.replaceChildren();
    for (const [index, choice] of models.filter((m) => m.kind === kind).entries()) {
      const label = document.createElement("label");
      label.className = "choice";
      const input = document.createElement("input");
      Object.assign(input, { type: "radio", name: kind, value: choice.model });
      input.checked = checked ? checked === choice.model : index === 0;
      label.append(input);
      for (const [name, text] of [["label", choice.label], ["time", estimate(choice)],
        ["about", choice.about]]) {
        const span = document.createElement("span");
        span.className = name;
        span.textContent = text;
        label.append(span);
      }
      place.append(label);
      if (focused === choice.model) input.focus();
    }
  }
}

// How long the chosen files take with a model, as far as it is known.
function estimate(choice) {
  const files = chosen.filter((each) => each.kind === choice.kind);
  const pixels = files.reduce((sum, each) => sum + (each.pixels ?? NaN), 0);
  if (!files.length || !choice.pixels_per_second || !pixels) return "";
  return `about ${duration(pixels * choice.scale ** 2 / choice.pixels_per_second)}`;
}

// Pixels of a picture, or of all frames of a video at 30 a second; NaN if unknown.
function countPixels(file, kind) {
  return new Promise((answer) => {
    const element = document.createElement(kind === "video" ? "video" : "img");
    const address = URL.createObjectURL(file);
    const end = (count) => { URL.revokeObjectURL(address); answer(count); };
    element.onerror = () => end(NaN);
    element.onload = () => end(element.naturalWidth * element.naturalHeight);
    element.onloadedmetadata = () =>
      end(element.videoWidth * element.videoHeight * element.duration * 30);
    element.preload = "metadata";
    element.src = address;
  });
}

function choose(files) {
  const refused = [];
  for (const file of files) {
    const entry = { file, kind: kindOf(file) };
    if (!file.size || file.size > limit) {
      refused.push(`${file.name} is ${file.size ? `larger than ${bytes(limit)}` : "empty"}`);
      continue;
    }
    chosen.push(entry);
    countPixels(file, entry.kind).then((count) => {
      entry.pixels = count;
      showChoices();
    });
  }
  complain(refused.join(", "));
  showChosen();
  if (!chosen.length) return;
  // Enter starts from here as well; the arrows choose.
  by("order").querySelector("fieldset:not([hidden]) :checked").focus({ preventScroll: true });
  by("order").scrollIntoView({ block: by("order").offsetHeight > innerHeight ? "start" : "nearest" });
}

function showChosen() {
  by("order").hidden = !chosen.length;
  by("pictures").hidden = !chosen.some((each) => each.kind === "picture");
  by("videos").hidden = !chosen.some((each) => each.kind === "video");
  by("chosen").replaceChildren(...chosen.map(({ file }) => {
    const line = document.createElement("li");
    for (const text of [file.name, bytes(file.size)]) {
      const span = document.createElement("span");
      span.textContent = text;
      line.append(span);
    }
    return line;
  }));
  by("start").textContent = chosen.length > 1 ? `Start ${chosen.length} files` : "Start";
  showChoices();
}

// Sending

function send({ file, kind }, model, told) {
  const query = new URLSearchParams({ name: file.name, model });
  return new Promise((answer, fail) => {
    const request = new XMLHttpRequest(); // fetch says nothing of an upload's progress
    request.open("POST", `/api/jobs?${query}`);
    request.upload.onprogress = (event) => told(event.loaded / event.total);
    request.onerror = () => fail(new Error("the connection broke"));
    request.onload = () => {
      let said = {};
      try { said = JSON.parse(request.response); } catch { /* not ours */ }
      if (request.status === 201) answer(said);
      else fail(Object.assign(new Error(said.error ?? `the server answered ${request.status}`),
        { again: request.status === 503 }));
    };
    request.send(file);
  });
}

async function start(event) {
  event.preventDefault();
  const models = Object.fromEntries(["picture", "video"].map((kind) =>
    [kind, by(`${kind}s`).querySelector(":checked").value]));
  const files = chosen;
  chosen = [];
  showChosen();
  complain("");
  by("jobs-title").tabIndex = -1;
  by("jobs-title").focus({ preventScroll: true });
  for (const each of files) {
    const line = card();
    line.classList.add("upload");
    line.querySelector(".name").textContent = each.file.name;
    const state = line.querySelector(".state"), bar = line.querySelector("progress");
    line.querySelectorAll(".buttons > *").forEach((button) => { button.hidden = true; });
    state.textContent = "Waits to be sent";
    by("jobs").prepend(line);
    by("empty").hidden = true;
    each.line = line;
    each.told = (share) => { state.textContent = "Sending"; bar.value = share; };
  }
  sending += files.length;
  for (const each of files) {
    for (;;) {
      try {
        await send(each, models[each.kind], each.told);
        each.line.remove();
      } catch (error) {
        if (error.again) {
          await new Promise((go) => setTimeout(go, 2000));
          continue;
        }
        const state = each.line.querySelector(".state");
        each.line.classList.add("failed");
        state.textContent = `Not sent: ${error.message}`;
        each.line.querySelector("progress").hidden = true;
        const remove = each.line.querySelector(".remove");
        remove.hidden = false;
        remove.onclick = () => each.line.remove();
        say(`${each.file.name} was not sent: ${error.message}`);
      }
      break;
    }
    sending -= 1;
    await look();
  }
}

// Watching

function card() {
  return by("job").content.cloneNode(true).firstElementChild;
}

function stateOf(job, ahead) {
  if (job.state === "queued")
    return ahead ? `Waits for ${ahead} other${ahead > 1 ? "s" : ""}` : "Waits";
  if (job.state === "running") {
    const left = job.seconds_left;
    return `${Math.floor(job.share * 100)} %${left === null ? "" : `, ${duration(left)} left`}`;
  }
  if (job.state === "failed") return `Failed: ${job.error}`;
  return job.seconds ? `Done in ${duration(job.seconds)}` : "Done";
}

function showJob(line, job, ahead) {
  const find = (name) => line.querySelector(name);
  const set = (name, text) => {
    if (find(name).textContent !== text) find(name).textContent = text;
  };
  const size = ([width, height]) => `${width}×${height}`;
  line.className = job.state;
  set(".name", job.name);
  const sizes = [job.input_size, job.output_size].filter(Boolean).map(size).join(" → ");
  set(".facts", [sizes, job.model].filter(Boolean).join(", "));
  set(".state", stateOf(job, ahead));
  const bar = find("progress");
  bar.hidden = job.state !== "running";
  if (job.share) bar.value = job.share; else bar.removeAttribute("value");
  bar.setAttribute("aria-label", `Progress of ${job.name}`);
  if (find(".notes").childElementCount !== job.notes.length)
    find(".notes").replaceChildren(...job.notes.map((note) =>
      Object.assign(document.createElement("li"), { textContent: note })));
  find(".notes").hidden = !job.notes.length;
  find(".compare").hidden = job.state !== "done" || job.format === "tiff";
  find(".download").hidden = job.state !== "done";
  find(".download").href = `/api/jobs/${job.id}/result?download`;
  find(".retry").hidden = job.state !== "failed";
  set(".remove", job.state === "running" ? "Stop and remove" : "Remove");
  for (const name of ["compare", "download", "retry", "remove"])
    find(`.${name}`).setAttribute("aria-label", `${find(`.${name}`).textContent}: ${job.name}`);
}

function newJob(job) {
  const line = card();
  line.dataset.id = job.id;
  const act = (method, address) => async () => {
    complain("");
    try {
      await ask(`/api/jobs/${job.id}${address}`, { method });
    } catch (error) {
      complain(error.message);
    }
    await look();
  };
  line.querySelector(".compare").onclick = () => compare(known.get(job.id).job);
  line.querySelector(".retry").onclick = act("POST", "/retry");
  line.querySelector(".remove").onclick = async () => {
    await act("DELETE", "")();
    by("jobs-title").tabIndex = -1;
    by("jobs-title").focus({ preventScroll: true });
  };
  return line;
}

async function watch() {
  const answer = await ask("/api/jobs", { headers: tag ? { "if-none-match": tag } : {} });
  if (answer.status === 304) return;
  tag = answer.headers.get("etag");
  const { jobs } = await answer.json();
  const there = new Set(jobs.map((job) => job.id));
  for (const [id, { line }] of known)
    if (!there.has(id)) { line.remove(); known.delete(id); }
  let ahead = 0;
  for (const job of jobs) {
    let entry = known.get(job.id);
    if (!entry) {
      entry = { line: newJob(job) };
      known.set(job.id, entry);
      by("jobs").prepend(entry.line);
    } else if (entry.job.state !== job.state && ["done", "failed"].includes(job.state)) {
      say(job.state === "done" ? `${job.name} is done` : `${job.name} failed: ${job.error}`);
    }
    entry.job = job;
    showJob(entry.line, job, ahead);
    if (["queued", "running"].includes(job.state)) ahead += 1;
  }
  by("empty").hidden = by("jobs").childElementCount > 0;
  document.title = ahead ? `(${ahead}) upfrost` : "upfrost";
}

// At once; what fails is said by the next time that it is tried.
const look = () => watch().catch(() => {});

async function keepWatching() {
  let wait = 1000;
  try {
    await watch();
    await learnModels();
    const isBusy = [...known.values()].some(({ job }) => ["queued", "running"].includes(job.state));
    wait = isBusy || sending ? 1000 : 4000;
  } catch (error) {
    tag = null;
    wait = 3000;
    problem(`No connection to upfrost (${error.message}); it is tried again.`);
  }
  setTimeout(keepWatching, document.hidden ? 5000 : wait);
}

// Comparing

const viewer = new Viewer(by("viewer"),
  () => innerHeight - document.querySelector("dialog .bar").offsetHeight - 24, showZoom);

function showZoom(zoom) {
  for (const button of document.querySelector(".zooms").children)
    button.setAttribute("aria-pressed", button.dataset.zoom === String(zoom));
}

// The size of what the browser can show, or null.
function probe(src, video) {
  return new Promise((answer) => {
    const element = document.createElement(video ? "video" : "img");
    element.onerror = () => answer(null);
    element.onload = () => answer([element.naturalWidth, element.naturalHeight]);
    element.onloadeddata = () => answer(element.videoWidth ? [element.videoWidth, element.videoHeight] : null);
    element.muted = true;
    element.preload = "auto";
    element.src = src;
  });
}

async function compare(job) {
  const video = job.kind === "video", base = `/api/jobs/${job.id}`;
  const before = { name: "before", src: `${base}/input`, video };
  const after = { name: "after", src: `${base}/result`, video };
  by("compared").textContent = job.name;
  by("save").href = `${base}/result?download`;
  by("unplayable").hidden = false;
  by("unplayable").textContent = "Loading…";
  by("comparison").showModal();
  const [small, large] = await Promise.all([probe(before.src, video), probe(after.src, video)]);
  by("unplayable").hidden = Boolean(small && large);
  by("unplayable").textContent = large
    ? "This browser cannot show the original, so the result stands alone."
    : "This browser cannot show this; download it instead.";
  by("viewer").hidden = !large;
  if (!large) return;
  viewer.show(small ? before : after, after, ...large);
  viewer.setShare(0.5);
  viewer.setZoom("fit");
  viewer.handle.focus();
}

by("comparison").addEventListener("close", () => {
  if (viewer.below?.localName === "video") viewer.stop();
});
by("comparison").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.tagName === "INPUT") return;
  if (viewer.press(event, zooms)) event.preventDefault();
});
by("close").onclick = () => by("comparison").close();
for (const each of ["fit", ...zooms]) {
  const button = document.createElement("button");
  button.textContent = each === "fit" ? "Fit" : `${each}×`;
  button.dataset.zoom = each;
  button.onclick = () => viewer.setZoom(each);
  document.querySelector(".zooms").append(button);
}

for (const id of ["files", "camera"])
  by(id).onchange = () => { choose(by(id).files); by(id).value = ""; };
by("order").onsubmit = start;
by("clear").onclick = () => { chosen = []; showChosen(); by("files").focus(); };
addEventListener("paste", (event) => choose(event.clipboardData.files));
for (const kind of ["dragover", "dragleave", "drop"])
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
    if (kind === "drop") choose(event.dataTransfer.files);
  });
addEventListener("beforeunload", (event) => { if (sending) event.preventDefault(); });
keepWatching();
