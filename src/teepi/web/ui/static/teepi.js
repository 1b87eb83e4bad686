"use strict";
// Everything works without this: it renews the figures while the page is looked at, and copies lines.
const live = document.getElementById("live");
if (live) {
  const pause = 2000;
  const renew = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch(live.dataset.live, { headers: { Accept: "text/html" }, cache: "no-store" });
        if (answer.ok) live.innerHTML = await answer.text(); // rendered by the server, where everything is escaped
        live.classList.toggle("stale", !answer.ok);
      } catch {
        live.classList.add("stale");
      }
    }
    setTimeout(renew, pause);
  };
  setTimeout(renew, pause);
}
for (const block of document.querySelectorAll("pre[data-copy]")) {
  if (!navigator.clipboard) break; // only over https or on localhost
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(block.querySelector("code").textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  block.append(button);
  block.classList.add("has-copy");
}
