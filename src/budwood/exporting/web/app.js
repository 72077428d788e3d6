"use strict";
// Classifies images with the network of this folder, in the page. What it shows is set as text, never as HTML.
(() => {
  const about = self.budwood.about;
  const at = (id) => document.getElementById(id);
  const SHOWN = 5; // bars of a card before "all classes"
  const PIXELS = 16777216; // the largest canvas of a phone; larger images are made smaller first
  const THUMBNAIL = 640; // pixels of a side
  const NONE = "none of these";
  const kept = []; // {name, answer, problem, card} of each image, in order
  let session = null;
  let queue = Promise.resolve();
  let pending = 0;
  let only = null;

  // --- Elements ---

  function make(tag, name = "", text = "") {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text) element.textContent = text;
    return element;
  }

  const plural = (n, one) => `${n.toLocaleString("en")} ${one}${n === 1 ? "" : "s"}`;

  function percent(share) {
    if (share > 0 && share < 0.001) return "< 0.1 %";
    if (share < 1 && share > 0.999) return "> 99.9 %";
    return `${(100 * share).toFixed(1)} %`;
  }

  // --- The network: its parts are scripts, which load from file:// too, where a page may fetch nothing ---

  function loadScript(address) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = address;
      script.onload = () => (script.remove(), resolve());
      script.onerror = () => reject(new Error(`${address} is missing. Copy the whole folder, and open index.html in it.`));
      document.head.append(script);
    });
  }

  function decodeBase64(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const letters = atob(text);
    const bytes = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i += 1) bytes[i] = letters.charCodeAt(i);
    return bytes;
  }

  async function loadFile(file, onPart) {
    const parts = [];
    for (let number = 1; number <= file.parts; number += 1) {
      const address = `${file.name}-${number}.js`;
      await loadScript(address);
      if (!self.budwood.part) throw new Error(`${address} is damaged. Export the folder again.`);
      parts.push(decodeBase64(self.budwood.part));
      self.budwood.part = null;
      onPart();
    }
    const packed = new Blob(parts).stream().pipeThrough(new DecompressionStream("gzip"));
    try {
      return new Uint8Array(await new Response(packed).arrayBuffer());
    } catch {
      throw new Error(`A part of ${file.name} is damaged. Export the folder again.`);
    }
  }

  async function loadNetwork() {
    if (!self.WebAssembly || !self.DecompressionStream) {
      throw new Error("This browser is too old for this page. Use one of 2023 or later.");
    }
    if (!self.ort) throw new Error("runtime/ort.js is missing. Copy the whole folder, and open index.html in it.");
    const all = about.runtime.parts + about.model.parts;
    let loaded = 0;
    const onPart = () => { at("loaded").value = (loaded += 1) / (all + 1); };
    ort.env.wasm.wasmBinary = (await loadFile(about.runtime, onPart)).buffer;
    ort.env.wasm.numThreads = 1;
    ort.env.logLevel = "error";
    const model = await loadFile(about.model, onPart);
    session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"], logSeverityLevel: 3 });
  }

  // --- Pixels, as the network was trained on them: upright, colours as stored, transparency on white ---
  // A video is scaled down by the browser, which is fast; a picture that is kept of it is not.

  async function decode(source) {
    if (source instanceof HTMLVideoElement) return source;
    const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };
    try {
      return await createImageBitmap(source, options);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      return createImageBitmap(source); // a browser that does not know an option
    }
  }

  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true, alpha: false });

  function readPixels(image) {
    const width = image.videoWidth || image.width;
    const height = image.videoHeight || image.height;
    const scale = Math.min(1, Math.sqrt(PIXELS / (width * height)), image.videoWidth ? about.size / Math.min(width, height) : 1);
    canvas.width = Math.max(1, Math.floor(width * scale));
    canvas.height = Math.max(1, Math.floor(height * scale));
    context.imageSmoothingQuality = "high";
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    const rgba = new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
    const rgb = new Uint8Array(3 * rgba.length);
    for (let i = 0, j = 0; i < rgba.length; i += 1, j += 3) {
      const pixel = rgba[i];
      rgb[j] = pixel & 255;
      rgb[j + 1] = (pixel >> 8) & 255;
      rgb[j + 2] = (pixel >> 16) & 255;
    }
    return new ort.Tensor("uint8", rgb, [1, canvas.height, canvas.width, 3]);
  }

  // --- From probabilities to an answer, by the rule that travels with the model ---

  function choose(shares) {
    const numbers = shares.map((_, number) => number);
    if (about.task === "multi-label") {
      const limit = (number) => (about.thresholds ? about.thresholds[number] : 0.5);
      return numbers.filter((number) => shares[number] > limit(number));
    }
    const cost = (column) => numbers.reduce((sum, row) => sum + shares[row] * about.costs[row][column], 0);
    const worth = about.costs ? numbers.map((number) => -cost(number)) : shares;
    return [numbers.reduce((best, number) => (worth[number] > worth[best] ? number : best), 0)];
  }

  function listCandidates(shares) {
    if (!about.set_limits) return null;
    const likeliest = shares.indexOf(Math.max(...shares));
    const sure = (number) => about.task !== "multi-label" && number === likeliest;
    return shares.map((_, number) => number).filter((number) => sure(number) || shares[number] >= about.set_limits[number]);
  }

  async function classify(image) {
    const began = performance.now();
    const outputs = await session.run({ image: readPixels(image) });
    const shares = Array.from(outputs.probabilities.data);
    const score = outputs.reject_score ? outputs.reject_score.data[0] : null;
    const strange = score !== null && about.reject_threshold !== null && score > about.reject_threshold;
    for (const name of Object.keys(outputs)) outputs[name].dispose();
    const took = performance.now() - began;
    return { shares, called: choose(shares), candidates: listCandidates(shares), strange, took };
  }

  const nameOf = (number) => about.classes[number];
  const nameAll = (numbers) => numbers.map(nameOf).join(", ");

  function nameAnswer(answer) {
    if (answer.strange) return NONE;
    return nameAll(answer.called) || "no label";
  }

  // --- What an answer looks like ---

  function makeBar(answer, number) {
    const row = make("li", answer.called.includes(number) && !answer.strange ? "called" : "");
    row.append(make("span", "name", nameOf(number)), make("span", "share", percent(answer.shares[number])));
    const track = make("span", "track");
    const fill = make("i");
    fill.style.width = `${100 * answer.shares[number]}%`;
    track.append(fill);
    if (about.task === "multi-label") {
      const limit = make("u");
      limit.style.left = `${100 * (about.thresholds ? about.thresholds[number] : 0.5)}%`;
      limit.title = "From here on, an image has this label.";
      track.append(limit);
    }
    row.append(track);
    return row;
  }

  function makeBars(answer, numbers) {
    const list = make("ul", "bars");
    list.append(...numbers.map((number) => makeBar(answer, number)));
    return list;
  }

  function showAnswer(place, answer, opened = false) {
    const order = answer.shares.map((_, number) => number).sort((a, b) => answer.shares[b] - answer.shares[a]);
    const line = make("p", answer.strange ? "answer none" : "answer", answer.strange ? "None of these" : nameAnswer(answer));
    if (!answer.strange && about.task === "single-label") {
      line.append(" ", make("span", "share", percent(answer.shares[answer.called[0]])));
    }
    place.append(line);
    if (answer.strange) {
      const nearest = nameAll(answer.called);
      place.append(make("span", "badge", `Unlike the images that the model learned from${nearest ? `; nearest: ${nearest}` : ""}.`));
    }
    const candidates = answer.candidates;
    if (candidates && !answer.strange && String(candidates) !== String(answer.called)) {
      place.append(make("p", "set", candidates.length ? `May be: ${nameAll(candidates)}` : "May be: no label"));
    }
    const first = Math.max(SHOWN, Math.min(answer.called.length, 2 * SHOWN));
    place.append(makeBars(answer, order.slice(0, first)));
    if (order.length > first && !opened) {
      const more = make("details", "more");
      more.append(make("summary", "", `All ${order.length} classes`));
      more.addEventListener("toggle", () => more.lastChild.tagName === "UL" || more.append(makeBars(answer, order.slice(first))), { once: true });
      place.append(more);
    }
  }

  function makeCard(name) {
    const card = make("li", "card waiting");
    const picture = make("div", "picture");
    picture.append(make("span", "mark", "…"));
    const text = make("div", "text");
    text.append(make("p", "file", name), make("p", "soft", "Waiting …"));
    card.append(picture, text);
    at("cards").append(card);
    return card;
  }

  function drawThumbnail(card, image, name) {
    const width = image.videoWidth || image.width;
    const height = image.videoHeight || image.height;
    const scale = Math.min(1, THUMBNAIL / Math.max(width, height));
    const small = make("canvas");
    small.width = Math.max(1, Math.round(width * scale));
    small.height = Math.max(1, Math.round(height * scale));
    const pen = small.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(image, 0, 0, small.width, small.height);
    small.setAttribute("role", "img");
    small.setAttribute("aria-label", name);
    card.firstChild.replaceChildren(small);
  }

  function fillCard(entry) {
    const text = make("div", "text");
    text.append(make("p", "file", entry.name));
    if (entry.problem) {
      entry.card.firstChild.replaceChildren(make("span", "mark", "⚠"));
      text.append(make("p", "answer broken", "Cannot be read"), make("p", "soft", entry.problem));
    } else {
      showAnswer(text, entry.answer);
    }
    entry.card.lastChild.replaceWith(text);
    entry.card.classList.remove("waiting");
  }

  // --- The list of answers ---

  const groupOf = (entry) => (entry.problem ? "cannot be read" : entry.answer ? nameAnswer(entry.answer) : "");

  function showCount() {
    const bad = kept.filter((entry) => entry.problem).length;
    const done = kept.length - pending;
    const said = [pending ? `${done.toLocaleString("en")} of ${plural(kept.length, "image")}` : plural(kept.length, "image")];
    if (bad) said.push(`${bad.toLocaleString("en")} cannot be read`);
    at("count").textContent = said.join(", ");
    at("results").hidden = !kept.length;
    document.body.classList.toggle("filled", kept.length > 0);
    at("save").disabled = pending > 0;
  }

  function showFilters() {
    const counts = new Map();
    for (const entry of kept) counts.set(groupOf(entry), (counts.get(groupOf(entry)) || 0) + 1);
    counts.delete("");
    if (!counts.has(only)) only = null;
    const order = [...counts].sort((a, b) => b[1] - a[1]);
    const buttons = order.map(([group, count]) => {
      const button = make("button", "", group);
      button.type = "button";
      button.append(make("b", "", count.toLocaleString("en")));
      button.setAttribute("aria-pressed", String(group === only));
      button.addEventListener("click", () => {
        only = group === only ? null : group;
        showFilters();
        at("filters").querySelector('[data-group="' + CSS.escape(group) + '"]')?.focus();
      });
      button.dataset.group = group;
      return button;
    });
    at("filters").replaceChildren(...(order.length > 1 ? buttons : []));
    for (const entry of kept) entry.card.hidden = only !== null && groupOf(entry) !== only;
  }

  async function answer(entry, source) {
    let image = null;
    try {
      image = await decode(source);
    } catch {
      entry.problem = "This browser cannot decode it as an image.";
    }
    if (image) {
      try {
        drawThumbnail(entry.card, image, entry.name);
        entry.answer = await classify(image);
      } catch (error) {
        entry.problem = `The network failed: ${error.message || error}`;
      }
      image.close?.();
    }
  }

  function add(source, name) {
    const entry = { name, answer: null, problem: "", card: makeCard(name) };
    kept.push(entry);
    pending += 1;
    showCount();
    queue = queue.then(async () => {
      await answer(entry, source);
      pending -= 1;
      if (!kept.includes(entry)) return;
      fillCard(entry);
      showCount();
      if (!pending || kept.length < 50) showFilters();
      await new Promise((resolve) => setTimeout(resolve)); // so that the page is drawn and hears its buttons
    });
  }

  function addFiles(files) {
    for (const file of files) add(file, file.name || "pasted image");
  }

  function quote(cell) {
    const text = /^[=+\-@\t\r]/.test(cell) ? `'${cell}` : cell; // a spreadsheet would compute it
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function saveTable() {
    const several = about.task === "multi-label";
    const head = ["file", several ? "labels" : "class", ...(about.set_limits ? ["may_be"] : []), "problem", ...about.classes.map((name) => `probability of ${name}`)];
    const rows = kept.map((entry) => {
      const made = entry.answer;
      const may = about.set_limits ? [made && made.candidates ? made.candidates.map(nameOf).join("; ") : ""] : [];
      const called = made ? (made.strange ? NONE : made.called.map(nameOf).join("; ")) : "";
      return [entry.name, called, ...may, entry.problem, ...about.classes.map((_, number) => (made ? made.shares[number].toFixed(6) : ""))];
    });
    const text = [head, ...rows].map((row) => row.map(quote).join(",")).join("\r\n");
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([`\ufeff${text}\r\n`], { type: "text/csv" }));
    link.download = "answers.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function clear() {
    for (const entry of kept.splice(0)) entry.card.remove();
    only = null;
    showFilters();
    showCount();
    at("choose").focus();
  }

  // --- Images come in: chosen, dropped (folders too), pasted ---

  function readFolder(entry) {
    if (entry.isFile) return new Promise((resolve) => entry.file((file) => resolve([file]), () => resolve([])));
    const reader = entry.createReader();
    const found = [];
    return new Promise((resolve) => {
      const next = () => reader.readEntries((entries) => {
        if (entries.length) { found.push(...entries); next(); } else resolve(found);
      }, () => resolve(found));
      next();
    }).then((entries) => Promise.all(entries.map(readFolder))).then((files) => files.flat());
  }

  async function takeDropped(data) {
    const entries = [...data.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    if (!entries.some((entry) => entry.isDirectory)) return addFiles(data.files);
    const files = (await Promise.all(entries.map(readFolder))).flat();
    const images = files.filter((file) => file.type.startsWith("image/"));
    return addFiles(images.sort((a, b) => a.name.localeCompare(b.name)));
  }

  function listen() {
    at("choose").addEventListener("click", () => at("files").click());
    at("files").addEventListener("change", (event) => { addFiles(event.target.files); event.target.value = ""; });
    at("save").addEventListener("click", saveTable);
    at("clear").addEventListener("click", clear);
    document.addEventListener("paste", (event) => session && addFiles([...event.clipboardData.files]));
    const holdsFiles = (event) => session && [...event.dataTransfer.types].includes("Files");
    document.addEventListener("dragover", (event) => {
      event.preventDefault(); // else a file that is let fall would replace the page
      document.body.classList.toggle("dragging", Boolean(holdsFiles(event)));
    });
    document.addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dragging"));
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dragging");
      if (holdsFiles(event)) takeDropped(event.dataTransfer);
    });
    at("camera").addEventListener("click", startCamera);
    at("stop").addEventListener("click", stopCamera);
    at("turn").addEventListener("click", turnCamera);
    at("keep").addEventListener("click", keepPicture);
  }

  // --- The camera ---

  let stream = null;
  let cameras = [];

  async function openCamera(constraints) {
    stream?.getTracks().forEach((track) => track.stop());
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, ...constraints }, audio: false });
    at("video").srcObject = stream;
    await at("video").play();
    cameras = (await navigator.mediaDevices.enumerateDevices()).filter((device) => device.kind === "videoinput");
    at("turn").hidden = cameras.length < 2;
  }

  async function startCamera() {
    fail("");
    if (!navigator.mediaDevices?.getUserMedia) {
      fail("Browsers give the camera to pages from https, from localhost or from a file only. Open the folder in one of these ways.");
      return;
    }
    try {
      await openCamera({ facingMode: { ideal: "environment" } });
    } catch (error) {
      stopCamera();
      fail(error.name === "NotAllowedError" ? "The camera is not allowed for this page. Allow it in the browser's bar of addresses." : `The camera cannot be used: ${error.message || error.name}.`);
      return;
    }
    at("camera").hidden = true;
    at("live").hidden = false;
    at("keep").focus();
    watch(stream);
  }

  async function watch(watched) {
    let speed = 0;
    while (stream === watched) {
      await (queue = queue.then(async () => {
        const made = await classify(at("video"));
        speed = speed ? 0.8 * speed + 0.2 * made.took : made.took;
        const place = make("div");
        showAnswer(place, made, true);
        at("live-answer").replaceChildren(place);
        at("live-speed").textContent = `${(1000 / speed).toFixed(speed > 200 ? 1 : 0)} answers a second`;
      }).catch((error) => { fail(`The network failed: ${error.message || error}`); stopCamera(); }));
      await new Promise((resolve) => requestAnimationFrame(resolve));
    }
  }

  async function turnCamera() {
    const now = stream.getVideoTracks()[0].getSettings().deviceId;
    const next = cameras[(cameras.findIndex((device) => device.deviceId === now) + 1) % cameras.length];
    try {
      await openCamera({ deviceId: { exact: next.deviceId } });
      watch(stream);
    } catch (error) {
      stopCamera();
      fail(`The camera cannot be used: ${error.message || error.name}.`);
    }
  }

  function stopCamera() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    at("video").srcObject = null;
    at("live").hidden = true;
    at("camera").hidden = false;
    at("camera").focus();
  }

  async function keepPicture() {
    const time = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
    add(await createImageBitmap(at("video")), `camera ${time}`);
  }

  // --- The page ---

  function fail(message) {
    at("failure").textContent = message;
    at("failure").hidden = !message;
  }

  function showAbout() {
    document.title = at("name").textContent = about.name;
    const shown = about.classes.slice(0, 12).join(", ");
    const rest = about.classes.length - 12;
    const lead = about.task === "multi-label" ? "Finds which labels an image has, of" : "Tells which class an image shows, of";
    at("lead").textContent = `${lead} ${plural(about.classes.length, "class").replace("classs", "classes")}: ${shown}${rest > 0 ? ` and ${rest} more` : ""}.`;
    for (const [term, text] of about.facts) at("facts").append(make("dt", "", term), make("dd", "", text));
  }

  async function start() {
    showAbout();
    listen();
    const began = performance.now();
    try {
      await loadNetwork();
    } catch (error) {
      at("loading").hidden = true;
      fail(`The network cannot be loaded. ${error.message || error}`);
      return;
    }
    at("loading").hidden = true;
    at("choose").disabled = at("camera").disabled = false;
    document.body.dataset.ready = Math.round(performance.now() - began);
  }

  start();
})();
